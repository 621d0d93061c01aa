// What is known of the data: findings over time, batches, dataset versions.

import { bytes, day, element, fresh, moment, number, percent, plural, svg, table, words } from "./format.js";

const BAR_HEIGHT = 24;
const SIZES_EVERY_MS = 10_000;
const TONES = { quarantine: "bad", warning: "warn" };
const DAY_S = 24 * 3600;

export function drawQuality(section, { quality }) {
  if (!fresh(section, quality)) return;
  const place = section.querySelector(".body");
  if (!quality) {
    place.replaceChildren(empty("No batch has come yet."));
    return;
  }
  const parts = [arrival(quality)];
  if (!quality.findings.length) {
    parts.push(empty("Nothing found: every row kept the contract so far."));
  } else {
    parts.push(element("div", { class: "scroll" }, findings(quality)));
    if (quality.more_findings) parts.push(empty(`${plural(quality.more_findings, "more finding")} with fewer rows.`));
  }
  place.replaceChildren(...parts);
}

function arrival({ arrival: a, rows, quarantined }) {
  const sum = (values) => values.reduce((x, y) => x + y, 0);
  const [checked, bad] = [sum(rows), sum(quarantined)];
  const entries = [
    ["rows and labels checked", checked, ""], ["quarantined", bad, bad ? "bad" : ""],
    ["duplicates", a.duplicates, ""], ["late", a.late, a.late ? "warn" : ""],
    ["out of order", a.out_of_order, ""], ["corrected", a.revised, ""],
    ["labels before their row", a.early_labels, ""],
  ];
  return element("dl", { class: "facts" }, ...entries.map(([name, count, tone]) =>
    element("div", { class: tone }, element("dt", { textContent: name }),
      element("dd", {}, number(count ?? 0),
        name === "quarantined" && bad ? element("small", { textContent: ` ${share(bad, checked)}` }) : ""))));
}

function share(part, whole) {
  const ratio = whole ? part / whole : 0;
  return ratio && ratio < 0.01 ? "< 1 %" : percent(ratio);
}

function findings(quality) {
  const { first, last, findings: found, stretch_s: width } = quality;
  const ends = `${stretchText(first, width)} – ${stretchText(last, width)}`;
  return table(["Column", "Check", { text: "Rows", class: "number" }, { text: ends, class: "over" }, "Newest"],
    found.map((one) => [
      element("strong", { class: "name", textContent: one.field }),
      element("span", {}, element("span", { class: `pill ${TONES[one.kind]}`, textContent: words(one.check) }),
        element("br"), element("small", { class: "quiet", textContent: one.kind === "quarantine" ? "quarantined" : "warning only" })),
      { class: "number", child: element("span", { title: `in ${plural(one.batches, "batch", "batches")}` }, number(one.rows)) },
      { class: "over", child: bars(one, quality) },
      element("span", {}, element("span", { class: "quiet", textContent: `${day(one.last)}: ` }), one.detail,
        one.rejected ? element("span", { class: "bad", textContent: ` ${plural(one.rejected, "batch", "batches")} rejected whole.` }) : ""),
    ]));
}

function stretchText(iso, width) {
  return width < DAY_S ? moment(iso) : day(iso);
}

// One bar a stretch of event time that has data; a bar that is not empty can be seen.
function bars({ counts, kind, field, check }, { stretches, rows, stretch_s: width }) {
  const top = Math.max(...counts, 1);
  const worst = counts.indexOf(Math.max(...counts));
  const made = svg("svg", { viewBox: `0 0 ${counts.length} ${BAR_HEIGHT}`, preserveAspectRatio: "none", role: "img", class: `bars ${TONES[kind]}`,
    "aria-label": `${field}, ${words(check)}: most in ${stretchText(stretches[worst], width)}, ${counts[worst]} rows` });
  counts.forEach((count, index) => {
    const height = count ? Math.max(2, (count / top) * BAR_HEIGHT) : 0.6;
    const bar = svg("rect", { x: index + 0.1, width: 0.8, y: BAR_HEIGHT - height, height, class: count ? "some" : "none" });
    const title = svg("title");
    title.textContent = `from ${stretchText(stretches[index], width)}: ${number(count)} of ${plural(rows[index], "row")}`;
    bar.append(title);
    made.append(bar);
  });
  return made;
}

export function drawBatches(section, { quality }, name) {
  const batches = quality?.batches ?? [];
  section.hidden = !batches.length;
  if (!fresh(section, [name, batches])) return;
  section.querySelector(".scroll").replaceChildren(table(
    ["Event time", "Source", { text: "Went on", class: "number" }, { text: "Quarantined", class: "number" }, "Findings", "Report"],
    batches.map((one) => [
      element("span", { class: "figure", title: `came ${moment(one.at)}`, textContent: spanText(one) }),
      element("span", { class: "name" }, one.source, one.kind === "labels" ? element("small", { class: "quiet", textContent: " labels" }) : ""),
      { class: "number", child: number(one.good) },
      { class: "number", child: element("span", { class: one.bad ? "bad" : "quiet", textContent: number(one.bad) }) },
      foundIn(one),
      links(`/reports/${encodeURIComponent(name)}/batches/${encodeURIComponent(one.batch)}`, {}, `batch of ${spanText(one)}`),
    ])));
}

function spanText({ start, end }) {
  const [first, last] = [moment(start), moment(end)];
  if (first === last) return first;
  return first.slice(0, -6) === last.slice(0, -6) ? `${first} – ${last.slice(-5)}` : `${first} – ${last}`;
}

function foundIn(batch) {
  if (!batch.found.length) return element("span", { class: "quiet", textContent: "none" });
  return element("span", { class: "pills" },
    ...(batch.rejected ? [element("span", { class: "pill bad", textContent: "rejected whole" })] : []),
    ...batch.found.map((one) => element("span", { class: `pill ${TONES[one.kind]}`, title: plural(one.rows, "row"),
      textContent: `${one.field}: ${words(one.check)}` })));
}

function links(path, query, of) {
  const url = (form) => `${path}?${new URLSearchParams({ ...query, ...(form === "json" ? { form } : {}) })}`.replace(/\?$/, "");
  return element("span", { class: "figure" }, ...["html", "json"].flatMap((form, index) => [
    index ? " · " : "",
    element("a", { href: url(form), target: "_blank", rel: "noopener", textContent: form === "html" ? "report" : "JSON",
      "aria-label": `${form === "html" ? "report" : "JSON"} of ${of}` }),
  ]));
}

const sizes = { of: "", bytes: {}, asked: 0, version: "" };

export function drawDatasets(section, { datasets }, name, redraw) {
  const shown = datasets?.shown ?? [];
  section.hidden = !shown.length;
  if (!shown.length) return;
  askSizes(name, shown, redraw);
  const known = sizes.of === name ? sizes.bytes : {};
  if (!fresh(section, [name, shown, known])) return;
  section.querySelector(".scroll").replaceChildren(table(
    ["Version", { text: "Rows", class: "number" }, { text: "Labelled", class: "number" }, { text: "Size", class: "number" }, "Added", "Learned from it", "Report"],
    shown.map((one) => [
      element("strong", { class: "figure", title: `made ${moment(one.at)}`, textContent: one.version }),
      { class: "number", child: number(one.rows) },
      { class: "number", child: number(one.labels) },
      { class: "number", child: one.version in known ? bytes(known[one.version]) : "–" },
      element("span", { class: "figure", title: spanText(one), textContent: `${number(one.added)} ${one.kind === "labels" ? "labels" : "rows"} until ${day(one.end)}` }),
      one.models.length ? element("span", { class: "pills" }, ...one.models.map((model) => element("span", { class: "pill good", textContent: `v${model}` }))) : "",
      links(`/reports/${encodeURIComponent(name)}`, { version: one.version }, `version ${one.version}`),
    ])));
}

// Asked anew when there is a newer version, but seldom: it reads the tables' logs.
async function askSizes(name, shown, redraw) {
  const version = shown[0].version;
  const now = performance.now();
  const isOther = sizes.of !== name;
  if (!isOther && (sizes.version === version || now - sizes.asked < SIZES_EVERY_MS)) return;
  Object.assign(sizes, { of: name, asked: now, version }, isOther ? { bytes: {} } : {});
  const answer = await fetch(`/api/sizes/${encodeURIComponent(name)}`).catch(() => null);
  if (!answer?.ok || sizes.of !== name) return;
  sizes.bytes = await answer.json();
  redraw();
}

// Opens the report of a version that a person writes; without a form, which the page's
// policy forbids.
export function askVersion(section, nameOf) {
  const [input, button] = [section.querySelector("input"), section.querySelector("button")];
  const open = () => {
    const version = input.value.trim();
    const isRight = /^\d+\.\d+$/.test(version);
    input.setAttribute("aria-invalid", String(!isRight));
    if (isRight) window.open(`/reports/${encodeURIComponent(nameOf())}?version=${version}`, "_blank", "noopener");
    else input.focus();
  };
  button.addEventListener("click", open);
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
}

function empty(text) {
  return element("p", { class: "quiet", textContent: text });
}
