// Everything else on the page: what waits, the summary, and the tables.

import { day, element, figure, number, percent, plural, words } from "./format.js";

const GOOD_STATES = new Set(["deployed"]);
const BAD_STATES = new Set(["rejected", "rolled back"]);

export function drawWaiting(place, pipeline) {
  const key = JSON.stringify(pipeline.waiting);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.hidden = !pipeline.waiting.length;
  place.replaceChildren(...pipeline.waiting.map((asked) => {
    const button = element("button", { type: "button", textContent: "Copy",
      onclick: async () => {
        await navigator.clipboard.writeText(asked.command);
        button.textContent = "Copied";
      } });
    const said = asked.said.length ? ` Said so far: ${asked.said.join(", ")}.` : "";
    return element("article", {},
      element("p", {}, element("strong", { textContent: `Version ${asked.version} waits for ${plural(asked.people, asked.role)}.` }), said),
      element("p", { class: "command" }, element("code", { textContent: asked.command }), button));
  }));
}

export function drawSummary(place, pipeline, counts, name) {
  if (!name) {
    place.replaceChildren(card("No pipeline yet", "driftloop apply FILE", "then publish rows: driftloop publish FILE"));
    return;
  }
  const { serving, versions, quarantine } = pipeline;
  const champion = versions.find((v) => v.version === serving?.champion);
  const points = [...pipeline.points.values()].filter((p) => p.role === "champion");
  const latest = points.reduce((a, b) => (a && a.t > b.t ? a : b), null);
  const rejected = counts["batch-rejected"]?.[1] ?? 0;
  const verdicts = [...pipeline.decisions.values()].filter((d) => d.drift);
  const verdict = verdicts.reduce((a, b) => (a && a.at > b.at ? a : b), null);
  const reason = quarantine.reasons[0];
  place.replaceChildren(
    champion
      ? card("In service", `v${champion.version}`, [words(champion.algorithm), champion.reason && `because of ${words(champion.reason)}`].filter(Boolean).join(", "), "good")
      : card("In service", "none", "waiting for enough labelled rows"),
    latest ? card(`Error now (${latest.metric})`, figure(latest.value), `v${latest.version}, until ${day(latest.t)}`)
      : card("Error now", "–", "not measured yet"),
    verdict ? card("Last verdict", words(verdict.drift.cause), `${verdict.drift.retrain ? "retrain" : "no training"} · ${day(verdict.event_time)}`, "warn")
      : card("Last verdict", "none", "no change found"),
    card("Rows scored", number(counts["batch-scored"]?.[1] ?? 0), `of ${number(counts["batch-ingested"]?.[1] ?? 0)} taken in`),
    card("Dataset", plural(counts["dataset-versioned"]?.[0] ?? 0, "version"),
      counts["dataset-versioned"] ? element("a", { href: `/reports/${name}`, target: "_blank", rel: "noopener", textContent: "report of the newest" }) : "no right row yet"),
    card("Quarantined", number(rejected), reason ? `mostly ${reason.field}: ${words(reason.check)}` : "no bad rows", rejected ? "warn" : ""),
  );
}

function card(name, value, more, tone = "") {
  return element("dl", { class: tone }, element("dt", { textContent: name }),
    element("dd", { class: "value", textContent: value }),
    element("dd", { class: "quiet" }, more));
}

export function drawVersions(place, pipeline) {
  const key = JSON.stringify(pipeline.versions);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  if (!pipeline.versions.length) {
    place.replaceChildren(element("p", { class: "quiet", textContent: "No version yet." }));
    return;
  }
  place.replaceChildren(table(["Version", "State", "Algorithm", "Why", "Hold-out", "Against", "Better by", "Gate"],
    pipeline.versions.map((v) => {
      const other = v.champion ?? v.baseline;
      const failed = v.gate.filter((check) => !check.passed && check.severity !== "warn");
      const warned = v.gate.filter((check) => !check.passed && check.severity === "warn");
      const tone = GOOD_STATES.has(v.state) ? "good" : BAD_STATES.has(v.state) ? "bad" : v.state === "awaiting approval" ? "person" : "";
      return [
        element("strong", { textContent: `v${v.version}` }),
        element("span", { title: v.detail }, element("span", { class: `pill ${tone}`, textContent: v.state }),
          v.state === "in rollout" ? ` ${v.detail}` : ""),
        element("span", { class: "figure", textContent: words(v.algorithm) }),
        element("span", { class: "figure", textContent: words(v.reason || "–") }),
        element("span", { class: "figure", title: `${number(v.holdout_rows)} rows until ${day(v.holdout_end)}`, textContent: `${v.metric} ${figure(v.candidate)}` }),
        element("span", { class: "figure", textContent: v.champion === null ? `no skill ${figure(other)}` : `v${v.champion_version} ${figure(other)}` }),
        element("span", { class: "figure", textContent: other ? percent(1 - v.candidate / other) : "–" }),
        element("span", { class: failed.length ? "bad" : "good",
          title: v.gate.map((c) => `${c.passed ? "✓" : c.severity === "warn" ? "!" : "✗"} ${words(c.name)}: ${c.detail}`).join("\n"),
          textContent: failed.length ? `✗ ${words(failed[0].name)}${failed.length > 1 ? ` +${failed.length - 1}` : ""}` : warned.length ? `✓ passed, ${warned.length} warning${warned.length > 1 ? "s" : ""}` : "✓ passed" }),
      ];
    })));
}

export function drawQuarantine(section, pipeline, counts) {
  const { reasons } = pipeline.quarantine;
  section.hidden = !reasons.length;
  const key = JSON.stringify(reasons);
  if (section.dataset.key === key) return;
  section.dataset.key = key;
  section.querySelector(".scroll").replaceChildren(table(["Field", "Check", "Rows", "Detail"],
    reasons.map((r) => [r.field, words(r.check), element("span", { class: "figure", textContent: number(r.rows) }), r.detail])));
}

export function drawLetters(section, letters) {
  section.hidden = !letters.last.length;
  const key = JSON.stringify(letters);
  if (section.dataset.key === key) return;
  section.dataset.key = key;
  section.querySelector(".scroll").replaceChildren(table(["Service", "Record", "Reason"],
    letters.last.map((l) => [l.service, element("code", { textContent: l.position }), l.reason])));
}

function table(names, rows) {
  return element("table", {},
    element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col", textContent: name })))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))))));
}
