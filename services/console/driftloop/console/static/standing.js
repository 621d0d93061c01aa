// How the pipeline stands now: estimates beside labels, the last verdict, open alerts.

import { day, element, figure, fresh, moment, number, percent, plural, table, words } from "./format.js";

const SHOWN_WINDOWS = 6;
const SHOWN_ALERTS = 5;
const ALERT_TONES = { info: "", warning: "warn", critical: "bad" };
const RANKS = { critical: 0, warning: 1, info: 2 };
const VERDICT_TONES = { ok: "good", degrading: "bad", cannot_tell: "warn" };
const LABEL_TONES = { none_yet: "warn", awaited: "", late: "bad" };
const METRICS = { roc_auc: "AUC", mae: "MAE", rmse: "RMSE", log_loss: "log loss" };

// ── estimates, until labels come ──

export function drawWindows(place, { windows }) {
  if (!fresh(place, windows)) return;
  place.hidden = !windows?.shown.length;
  if (place.hidden) return;
  const newest = windows.shown.at(-1);
  place.replaceChildren(
    element("h3", { textContent: "Before labels" }),
    element("dl", { class: "facts" }, ...facts(newest, windows)),
    newest.verdict === "cannot_tell" ? element("p", { class: "quiet", textContent: `${newest.reason}.` }) : "",
    element("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Estimated and measured performance by window" }, table(
      ["Rows until", "Verdict", { text: "Estimated", class: "number" }, { text: "95 % between", class: "number" }, { text: "Measured", class: "number" }, "Version"],
      windows.shown.slice(-SHOWN_WINDOWS).reverse().map((one) => [
        element("span", { class: "figure", title: `window ${one.number}, ${plural(one.rows, "row")} from ${moment(one.start)}`, textContent: moment(one.end) }),
        one.verdict ? element("span", { class: `pill ${VERDICT_TONES[one.verdict]}`, title: one.reason, textContent: words(one.verdict) }) : "",
        { class: "number", child: one.estimate ? figure(one.estimate.value) : "–" },
        { class: "number", child: one.estimate ? `${figure(one.estimate.low)} – ${figure(one.estimate.high)}` : "–" },
        { class: "number", child: measuredOf(one) },
        `v${one.version}`,
      ]))));
}

function facts(newest, { labels, basis, score }) {
  const { estimate } = newest;
  const fact = (name, value, more = "", tone = "") => element("div", { class: tone },
    element("dt", { textContent: name }), element("dd", {}, value, more ? element("small", { textContent: ` ${more}` }) : ""));
  const made = [];
  if (estimate) {
    const usual = basis?.expected == null ? "" : `, hold-out ${figure(basis.expected)}`;
    made.push(fact(`${METRICS[estimate.metric] ?? words(estimate.metric)} estimated`, figure(estimate.value),
      `${figure(estimate.low)} to ${figure(estimate.high)}${usual}`, VERDICT_TONES[newest.verdict]));
  } else made.push(fact("Estimated", words(newest.verdict ?? "–"), "", "warn"));
  if (labels) {
    const since = labels.awaited_since ? `since ${day(labels.awaited_since)}` : "";
    made.push(fact("Labels", words(labels.state), since, LABEL_TONES[labels.state]));
  }
  if (basis) made.push(fact("Rests on", plural(basis.row_count, "labelled row"), basis.until ? `until ${day(basis.until)}` : ""));
  if (score?.coverage != null) {
    made.push(fact("Interval held", percent(score.coverage), `of ${plural(score.window_count, "window")}, off by ${figure(score.mean_absolute_error)} on average`));
  }
  return made;
}

// A measured value, marked where the interval did not hold.
function measuredOf({ measured, estimate, labelled }) {
  if (!measured) return element("span", { class: "quiet", textContent: "labels awaited" });
  const isOutside = estimate && (measured.value < estimate.low || measured.value > estimate.high);
  return element("span", { class: isOutside ? "bad" : "", title: `${plural(labelled, "labelled row")}; 95 % between ${figure(measured.low)} and ${figure(measured.high)}${isOutside ? "; outside of the estimate's interval" : ""}`,
    textContent: `${figure(measured.value)}${isOutside ? " ✗" : ""}` });
}

// ── why ──

export function drawVerdict(section, { verdict }) {
  section.hidden = !verdict;
  if (!verdict || !fresh(section, verdict)) return;
  section.querySelector("small").textContent = day(verdict.detected_at);
  section.querySelector(".body").replaceChildren(
    element("p", { class: "said" },
      element("strong", { class: "cause", textContent: words(verdict.cause) }),
      verdict.confidence == null ? "" : element("span", { class: "pill", textContent: `${percent(verdict.confidence)} sure` }),
      element("span", { class: `pill ${verdict.retrain_advised ? "warn" : ""}`, textContent: verdict.retrain_advised ? "retrain advised" : "no training" })),
    overruled(verdict.overruled),
    element("p", { textContent: verdict.explanation }),
    element("dl", { class: "facts" }, ...reasons(verdict)),
    element("ul", { class: "evidence", "aria-label": "Evidence" }, ...verdict.evidence.map(evidenceOf)));
}

function overruled(said) {
  if (!said) return "";
  return element("p", { class: "person" }, element("span", { class: "pill", textContent: "overruled" }),
    ` ${said.by}: ${words(said.cause)}. ${said.reason}`);
}

function reasons(verdict) {
  const fact = (name, text) => element("div", {}, element("dt", { textContent: name }), element("dd", { class: "plain", textContent: text }));
  const parts = (shares) => Object.entries(shares).map(([name, share]) => `${name} ${percent(share)}`).join(", ");
  const columns = verdict.features.map((name) => (name in verdict.shares ? `${name} ${percent(verdict.shares[name])}` : name));
  const others = Object.entries(verdict.alternatives).map(([name, sure]) => `${words(name)} ${percent(sure)}`);
  return [
    fact("Since", day(verdict.since)),
    verdict.model_version && fact("Of version", `v${verdict.model_version}`),
    columns.length && fact("Columns", columns.join(", ")),
    Object.keys(verdict.sources).length && fact("Sources", parts(verdict.sources)),
    others.length && fact("Or else", others.join(", ")),
  ].filter(Boolean);
}

function evidenceOf(one) {
  const limit = one.threshold == null ? "" : `, limit ${figure(one.threshold)}`;
  const chance = one.p_value == null ? "" : `, p ${one.p_value < 0.001 ? "< 0.001" : figure(one.p_value)}`;
  return element("li", {},
    element("span", { class: "name" }, element("strong", { textContent: one.signal.replace(/^feature:/, "") }), ` ${words(one.detector)}`),
    element("span", { class: "quiet number", textContent: `${figure(one.statistic)}${limit}${chance}` }),
    element("span", { class: "quiet detail", textContent: [one.detail, plural(one.row_count, "row")].filter(Boolean).join(" · ") }));
}

// ── alerts ──

export function drawAlerts(section, { alerts, decisions }) {
  const over = [...decisions.values()].filter((item) => item.topic === "alert-resolved").length;
  if (!fresh(section, [alerts, over])) return;
  const ordered = [...alerts].sort((a, b) => RANKS[a.severity] - RANKS[b.severity]);
  const shown = ordered.slice(0, SHOWN_ALERTS).map(alertOf);
  const rest = [ordered.length > SHOWN_ALERTS && `${number(ordered.length - SHOWN_ALERTS)} more: driftloop alerts list`,
    over && `${number(over)} over, among the decisions`].filter(Boolean);
  if (!shown.length) rest.unshift("None");
  if (rest.length) shown.push(element("li", { class: "quiet", textContent: `${rest.join("; ")}.` }));
  section.querySelector(".list").replaceChildren(...shown);
}

function alertOf({ severity, title, detail, owner, since, times, seen_by: seenBy, id }) {
  const tone = ALERT_TONES[severity];
  return element("li", { class: tone, title: `driftloop alerts show ${id}` },
    element("p", { class: "title" }, element("strong", { textContent: title }), element("span", { class: `pill ${tone}`, textContent: severity })),
    element("p", { textContent: detail }),
    element("p", { class: "quiet", textContent: [`since ${moment(since)} UTC`, times > 1 && `${number(times)} times`,
      seenBy ? `${seenBy} looks after it` : owner && `to ${owner}`].filter(Boolean).join(" · ") }));
}
