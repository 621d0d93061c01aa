// Everything else on the page: what waits, the summary, and the tables.

import { day, element, figure, fresh, number, percent, plural, table, words } from "./format.js";

const GOOD_STATES = new Set(["deployed"]);
const BAD_STATES = new Set(["rejected", "rolled back"]);

export function drawWaiting(place, pipeline) {
  const { waiting, proposal } = pipeline;
  if (!fresh(place, [waiting, proposal])) return;
  place.hidden = !waiting.length && !proposal;
  place.replaceChildren(...waiting.map(approval), ...(proposal ? [schema(proposal)] : []));
}

function approval(asked) {
  const yes = asked.said.filter((one) => one.endsWith(": approve")).length;
  const said = (asked.said.length ? ` Said so far (${yes} of ${asked.people}): ${asked.said.join(", ")}.` : "")
    + (asked.until ? ` Open until ${day(asked.until)} ${asked.until.slice(11, 16)} UTC.` : "");
  return element("article", {},
    element("p", {}, element("strong", { textContent: `Version ${asked.version} waits for ${asked.waits_for}.` }), said),
    command(asked.command));
}

function schema(proposal) {
  const first = `from the first ${plural(proposal.rows, "row")}, ${plural(proposal.columns, "column")}`;
  const lines = proposal.differences.map((line) => element("li", {}, element("code", { textContent: line })));
  if (proposal.more) lines.push(element("li", { textContent: `and ${number(proposal.more)} more` }));
  return element("article", {},
    element("div", {},
      element("p", {}, element("strong", { textContent: `Schema ${proposal.version} waits for a person` }),
        lines.length ? "; in it is different:" : `: ${first}.`),
      lines.length ? element("ul", { class: "changes" }, ...lines) : "",
      ...proposal.reasons.map((reason) => element("p", { class: "quiet", textContent: reason }))),
    element("div", {}, command(proposal.look), command(proposal.command)));
}

function command(text) {
  const button = element("button", { type: "button", textContent: "Copy", "aria-label": `Copy ${text}`,
    onclick: async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } });
  return element("p", { class: "command" }, element("code", { textContent: text }), button);
}

export function drawSummary(place, pipeline, counts, name) {
  if (!name) {
    place.replaceChildren(card("No pipeline yet", "driftloop apply FILE", "then publish rows: driftloop publish FILE"));
    return;
  }
  const { serving, versions, quality, datasets } = pipeline;
  const champion = versions.find((v) => v.version === serving?.champion);
  const points = [...pipeline.points.values()].filter((p) => p.role === "champion");
  const latest = points.reduce((a, b) => (a && a.t > b.t ? a : b), null);
  const rejected = counts["batch-rejected"]?.[1] ?? 0;
  const verdicts = [...pipeline.decisions.values()].filter((d) => d.drift);
  const verdict = verdicts.reduce((a, b) => (a && a.at > b.at ? a : b), null);
  const reason = quality?.findings.find((finding) => finding.kind === "quarantine");
  const newest = datasets?.shown[0];
  const before = (pipeline.environments ?? []).map((e) => `${e.name}: ${e.serving?.champion ? `v${e.serving.champion}` : "none"}`);
  place.replaceChildren(
    champion
      ? card("In service", `v${champion.version}`, [words(champion.algorithm), champion.reason && `because of ${words(champion.reason)}`, ...before].filter(Boolean).join(", "), "good")
      : card("In service", "none", ["waiting for enough labelled rows", ...before].join(", ")),
    latest ? card(`Error now (${latest.metric})`, figure(latest.value), `v${latest.version}, until ${day(latest.t)}`)
      : card("Error now", "–", "not measured yet"),
    verdict ? card("Last verdict", words(verdict.drift.cause), `${verdict.drift.retrain ? "retrain" : "no training"} · ${day(verdict.event_time)}`, "warn")
      : card("Last verdict", "none", "no change found"),
    card("Rows scored", number(counts["batch-scored"]?.[1] ?? 0), `of ${number(counts["batch-ingested"]?.[1] ?? 0)} taken in`),
    newest
      ? card("Dataset", newest.version, element("span", {}, `${plural(newest.rows, "row")} · `,
        element("a", { href: `/reports/${encodeURIComponent(name)}`, target: "_blank", rel: "noopener", textContent: "report" })))
      : card("Dataset", "none", "no right row yet"),
    card("Quarantined", number(rejected), reason ? `mostly ${reason.field}: ${words(reason.check)}` : "no bad rows", rejected ? "warn" : ""),
  );
}

function card(name, value, more, tone = "") {
  return element("dl", { class: tone }, element("dt", { textContent: name }),
    element("dd", { class: "value", textContent: value }),
    element("dd", { class: "quiet" }, more));
}

export function drawVersions(place, pipeline) {
  if (!fresh(place, pipeline.versions)) return;
  if (!pipeline.versions.length) {
    place.replaceChildren(element("p", { class: "quiet", textContent: "No version yet." }));
    return;
  }
  const algorithms = new Set(pipeline.versions.map((v) => v.algorithm));
  const isShared = algorithms.size === 1;
  document.querySelector("#versions-title small").textContent = isShared ? `all ${words([...algorithms][0])}` : "";
  place.replaceChildren(table(["Version", "State", "Why", "Hold-out", "Against", { text: "Better by", class: "number" }, "Gate", ...(isShared ? [] : ["Algorithm"])],
    pipeline.versions.map((v) => {
      const other = v.champion ?? v.baseline;
      const failed = v.gate.filter((check) => !check.passed && check.severity !== "warn");
      const warned = v.gate.filter((check) => !check.passed && check.severity === "warn");
      const tone = GOOD_STATES.has(v.state) ? "good" : BAD_STATES.has(v.state) ? "bad" : v.state === "awaiting approval" ? "person" : "";
      return [
        element("strong", { textContent: `v${v.version}` }),
        element("span", { class: "figure", title: v.detail }, element("span", { class: `pill ${tone}`, textContent: v.state }),
          v.state === "in rollout" ? ` ${v.detail}` : ""),
        element("span", { class: "figure", textContent: words(v.reason || "–") }),
        element("span", { class: "figure", title: `${number(v.holdout_rows)} rows until ${day(v.holdout_end)}`, textContent: `${v.metric} ${figure(v.candidate)}` }),
        element("span", { class: "figure", textContent: v.champion === null ? `no skill ${figure(other)}` : `v${v.champion_version} ${figure(other)}` }),
        { class: "number", child: other ? percent(1 - v.candidate / other) : "–" },
        element("span", { class: failed.length ? "bad" : "good",
          title: v.gate.map((c) => `${c.passed ? "✓" : c.severity === "warn" ? "!" : "✗"} ${words(c.name)}: ${c.detail}`).join("\n"),
          textContent: failed.length ? `✗ ${failed.length} of ${v.gate.length} failed` : warned.length ? `✓ passed, ${warned.length} warning${warned.length > 1 ? "s" : ""}` : "✓ passed" }),
        ...(isShared ? [] : [element("span", { class: "quiet", textContent: words(v.algorithm) })]),
      ];
    })));
}

export function drawLetters(section, letters) {
  section.hidden = !letters.last.length;
  if (!fresh(section, letters)) return;
  section.querySelector(".scroll").replaceChildren(table(["Service", "Record", "Reason"],
    letters.last.map((l) => [l.service, element("code", { textContent: l.position }), l.reason])));
}
