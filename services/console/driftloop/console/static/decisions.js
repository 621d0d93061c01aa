// Decisions, newest chain first; a chain is one first cause and all that came of it.

import { clock, day, element, words } from "./format.js";

const SHOWN_CHAINS = 40;
const OPEN_CHAINS = 3; // the newest that matter; the others by a click
const HEADLINES = ["model-rolled-back", "model-deployed", "model-rejected", "training-failed",
  "approval-requested", "model-registered", "training-started", "training-skipped",
  "drift-detected", "alert-raised"];

export function drawDecisions(place, pipeline) {
  const key = `${pipeline.decisions.size}/${[...pipeline.decisions.keys()].at(-1)}`;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
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
  place.replaceChildren(...ordered.slice(0, SHOWN_CHAINS).map((items) => {
    const made = chainOf(items);
    const matters = items.some((item) => item.tone !== "quiet");
    if (matters) opened += 1;
    made.open = open.get(items[0].chain) ?? (matters && opened <= OPEN_CHAINS);
    return made;
  }));
  if (ordered.length > SHOWN_CHAINS) {
    place.append(element("p", { class: "quiet",
      textContent: `${ordered.length - SHOWN_CHAINS} earlier ones: driftloop watch shows all.` }));
  }
}

function chainOf(items) {
  const head = headline(items);
  const first = items[0];
  const when = first.event_time ? day(first.event_time) : clock(first.at);
  const summary = element("summary", { class: head.tone },
    element("span", { class: "when", textContent: when }),
    element("span", { class: "headline", textContent: head.text }));
  const list = element("ol", {}, ...items.map(line));
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
    "training-started": `Training${why}`,
    "training-failed": `Training failed${why}`,
    "training-skipped": drift ? `${capital(words(drift.drift.cause))}, no training` : "No training",
    "drift-detected": `${capital(words(drift?.drift.cause ?? ""))}${skipped ? ", no training" : ""}`,
    "alert-raised": capital(found.text.replace(/^(info|warning|critical): /, "")),
    "pipeline-applied": "Pipeline applied",
    "retrain-requested": "A person asked for a training",
    "rollback-requested": "A person asked for a rollback",
  }[found.topic];
  const tone = found.topic === "training-skipped" && drift ? drift.tone : found.tone;
  return { tone, text: told ?? capital(found.text) };
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function line(item) {
  return element("li", { class: item.tone },
    element("time", { dateTime: item.at, textContent: clock(item.at),
      title: item.event_time ? `data until ${day(item.event_time)}` : "" }),
    element("span", { class: "topic", textContent: words(item.topic) }),
    element("span", { class: "text", textContent: item.text }));
}
