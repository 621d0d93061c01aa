// Decisions, newest chain first; a chain is one first cause and all that came of it.

import { clock, day, element, plural, words } from "./format.js";

const SHOWN_CHAINS = 20;
const OPEN_CHAINS = 2; // the newest that matter; the others by a click
let titles = new Map(); // of alerts, by condition
let wanted = SHOWN_CHAINS; // grows when somebody asks for more
const HEADLINES = ["model-rolled-back", "model-deployed", "model-rejected", "training-failed",
  "approval-requested", "model-registered", "training-started", "training-skipped",
  "drift-detected", "alert-raised"];

export function drawDecisions(place, pipeline) {
  const key = `${pipeline.decisions.size}/${[...pipeline.decisions.keys()].at(-1)}`;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  const alerts = [...pipeline.decisions.values()].filter((item) => item.alert);
  titles = new Map(alerts.map((item) => [item.condition, item.alert.title]));
  const chains = new Map();
  for (const item of pipeline.decisions.values()) {
    if (!chains.has(item.chain)) chains.set(item.chain, []);
    chains.get(item.chain).push(item);
  }
  const ordered = [...chains.values()];
  const byTime = (a, b) => (a.at < b.at ? -1 : Number(a.at > b.at));
  for (const items of ordered) items.sort(byTime); // stable: the server's order holds
  ordered.sort((a, b) => byTime(b.at(-1), a.at(-1)));
  if (!ordered.length) {
    place.replaceChildren(element("p", { class: "quiet", textContent: "No decision yet." }));
    return;
  }
  const open = new Map([...place.querySelectorAll("details")].map((d) => [d.dataset.chain, d.open]));
  let opened = 0;
  const groups = grouped(ordered);
  const made = groups.slice(0, wanted).map((chains) => {
    const matters = chains.length === 1 && chains[0].some(isNews);
    if (matters) opened += 1;
    const part = chains.length > 1 ? notesOf(chains) : chainOf(chains[0]);
    part.open = open.get(part.dataset.chain) ?? (matters && opened <= OPEN_CHAINS);
    return part;
  });
  if (groups.length > wanted) {
    made.push(element("button", { type: "button", class: "show-more", textContent: plural(groups.length - wanted, "earlier one"),
      onclick: () => {
        wanted += 2 * SHOWN_CHAINS;
        place.dataset.key = "";
        drawDecisions(place, pipeline);
      } }));
  }
  place.replaceChildren(...made);
}

const isNews = (item) => item.tone !== "quiet";

// Chains without any news that follow each other are one line.
function grouped(ordered) {
  const groups = [];
  for (const items of ordered) {
    const last = groups.at(-1);
    if (last && !items.some(isNews) && !last[0].some(isNews)) last.push(items);
    else groups.push([items]);
  }
  return groups;
}

function notesOf(chains) {
  const [first, last] = [chains.at(-1)[0], chains[0][0]];
  const made = element("details", {}, element("summary", { class: "quiet" },
    element("span", { class: "when", textContent: last.event_time ? day(last.event_time) : clock(last.at) }),
    element("span", { class: "headline", textContent: `${plural(chains.length, "note")}, nothing done` })),
    element("ol", {}, ...chains.flat().map((item) => line(item, true))));
  made.dataset.chain = `notes ${first.chain}`;
  return made;
}

function chainOf(items) {
  const head = headline(items);
  const first = items[0];
  const when = first.event_time ? day(first.event_time) : clock(first.at);
  const summary = element("summary", { class: head.tone },
    element("span", { class: "when", textContent: when }),
    element("span", { class: "headline", textContent: head.text }));
  const list = element("ol", {}, ...items.map((item) => line(item)));
  const made = element("details", {}, summary, list,
    element("p", { class: "quiet id", textContent: `chain ${first.chain}` }));
  made.dataset.chain = first.chain;
  return made;
}

function headline(items) {
  const found = HEADLINES.map((topic) => items.findLast((item) => item.topic === topic))
    .find((item) => item) ?? items.at(-1);
  const drift = items.find((item) => item.drift);
  const why = drift ? `: ${words(drift.drift.cause)}` : "";
  const skipped = items.some((item) => item.topic === "training-skipped");
  const told = {
    "model-deployed": `v${found.version} went into service${why}`,
    "model-rolled-back": `v${found.version} was rolled back`,
    "model-rejected": `v${found.version} was rejected`,
    "approval-requested": `v${found.version} waits for approval`,
    "model-registered": `v${found.version} registered${why}`,
    "schema-proposed": "A schema is proposed",
    "schema-accepted": "A schema is in force",
    "training-started": `Training${why}`,
    "training-failed": `Training failed${why}`,
    "training-skipped": drift ? `${capital(words(drift.drift.cause))}${sure(drift.drift)}, no training` : "No training",
    "drift-detected": `${capital(words(drift?.drift.cause ?? ""))}${sure(drift?.drift)}${skipped ? ", no training" : ""}`,
    "verdict-overruled": "A person overruled a verdict",
    "alert-raised": capital(found.text.replace(/^(info|warning|critical): /, "")),
    "alert-resolved": `Over: ${titles.get(found.condition) ?? found.condition}`,
    "labels-wanted": "People are asked for labels",
    "pipeline-applied": "Pipeline applied",
    "retrain-requested": "A person asked for a training",
    "federation-requested": "A person asked sites to train together",
    "rollback-requested": "A person asked for a rollback",
    "rollout-steered": "A person stepped into a rollout",
  }[found.topic];
  const tone = found.topic === "training-skipped" && drift ? drift.tone : found.tone;
  return { tone, text: told ?? capital(found.text) };
}

/* How sure a verdict is and what carries it, as far as it says so. */
function sure(drift) {
  if (!drift || drift.confidence == null) return "";
  const carried = [...Object.keys(drift.features ?? {}), ...Object.keys(drift.sources ?? {})];
  const by = carried.length ? `, ${carried.slice(0, 3).join(", ")}` : "";
  return ` (${Math.round(100 * drift.confidence)} % sure${by})`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function line(item, withDay = false) {
  const when = withDay && item.event_time ? day(item.event_time).slice(0, -5) : clock(item.at);
  return element("li", { class: item.tone },
    element("time", { dateTime: item.at, textContent: when,
      title: item.event_time ? `data until ${day(item.event_time)}` : "" }),
    element("span", { class: "topic", textContent: words(item.topic) }),
    element("span", { class: "text", textContent: item.text }));
}
