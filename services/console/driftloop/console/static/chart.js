// The error over event time: who answered, what changed, when rows were bad.

import { day, element, figure, month, svg, words } from "./format.js";

const HEIGHT = 260;
const MARGIN = { top: 30, right: 14, bottom: 26, left: 46 };
const TICKS_Y = 4;
const DAY_MS = 24 * 3600 * 1000;
const FAULT_RATIO = 0.2; // of a batch's rows in quarantine
const HUES = 6;

export function drawChart(section, pipeline) {
  const plot = section.querySelector(".plot");
  const points = [...pipeline.points.values()];
  const key = [points.length, pipeline.decisions.size, pipeline.quarantine.spans.length,
    plot.clientWidth, pipeline.spec?.metric,
    pipeline.windows?.shown.map((one) => `${one.number}${one.measured ? "m" : ""}`)].join("/");
  if (plot.dataset.key === key) return;
  plot.dataset.key = key;
  const served = points.filter((point) => point.role === "champion").map(timed);
  if (served.length < 2) {
    plot.replaceChildren(element("p", { class: "quiet",
      textContent: "Nothing measured yet: it takes a model in service and labelled rows." }));
    section.querySelector(".legend").replaceChildren();
    return;
  }
  served.sort((a, b) => a.t - b.t);
  const tried = points.filter((point) => point.role === "candidate").map(timed)
    .sort((a, b) => a.t - b.t);
  const decisions = [...pipeline.decisions.values()].filter((item) => item.event_time);
  const thought = estimates(pipeline, served[0].metric);
  const scale = scales(plot.clientWidth || 600, served, tried, thought);
  const chart = svg("svg", { viewBox: `0 0 ${scale.width} ${HEIGHT}`, role: "img",
    tabindex: "0", "aria-label": summary(served, decisions) });
  chart.append(...axes(scale), ...faults(scale, pipeline.quarantine.spans),
    ...bands(scale, thought), ...marks(scale, decisions), ...lines(scale, tried, "tried"),
    ...lines(scale, served, "served"));
  const tip = element("p", { class: "tip", hidden: true });
  follow(chart, tip, scale, served);
  plot.replaceChildren(chart, tip);
  legend(section.querySelector(".legend"), served[0].metric, tried.length > 0, pipeline, thought.length > 0);
}

// Windows whose labels have not landed: there the estimate is all that is known.
function estimates({ windows }, metric) {
  return (windows?.shown ?? []).filter((one) => one.estimate?.metric === metric && !one.measured)
    .map(({ start, end, version, estimate }) => ({ ...estimate, version, start: Date.parse(start), t: Date.parse(end) }));
}

function bands({ x, y, first, top }, thought) {
  return thought.filter((one) => one.t >= first).flatMap((one) => {
    const [a, b] = [x(Math.max(one.start, first)), x(one.t)];
    const band = svg("rect", { x: a, width: Math.max(2, b - a), y: y(one.high), class: `band fill-${one.version % HUES}`,
      height: Math.max(1, y(Math.max(one.low, 0)) - y(Math.min(one.high, top))) });
    band.append(title(`v${one.version}, ${day(one.start)} to ${day(one.t)}: ${one.metric} estimated ${figure(one.value)}, 95 % between ${figure(one.low)} and ${figure(one.high)}`));
    return [band, svg("line", { x1: a, x2: Math.max(a + 2, b), y1: y(one.value), y2: y(one.value), class: `thought hue-${one.version % HUES}` })];
  });
}

const timed = (point) => ({ ...point, t: Date.parse(point.t) });

function scales(width, served, tried, thought) {
  const all = [...served, ...tried, ...thought];
  const first = Math.min(...all.map((p) => p.t));
  const last = Math.max(...all.map((p) => p.t), first + DAY_MS);
  const ordered = served.map((p) => p.value).sort((a, b) => a - b);
  // One wild window of a candidate in shadow must not flatten everything else.
  const top = nice(Math.max(ordered.at(-1), ...thought.map((p) => p.value), Math.min(1.5 * ordered.at(-1),
    ...[Math.max(0, ...tried.map((p) => p.value))])));
  const x = (t) => MARGIN.left + ((t - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
  const y = (v) => HEIGHT - MARGIN.bottom
    - (Math.min(v, top) / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  return { width, first, last, top, x, y };
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= value) ?? value;
}

function axes({ width, first, last, top, x, y }) {
  const made = [];
  for (let n = 0; n <= TICKS_Y; n += 1) {
    const value = (top / TICKS_Y) * n;
    made.push(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value), class: "grid" }),
      text(MARGIN.left - 8, y(value) + 4, figure(value), "end"));
  }
  const months = Math.max(1, Math.ceil((last - first) / (30 * DAY_MS) / (width / 90)));
  const at = new Date(first);
  for (let n = 1; n < 400; n += months) {
    const t = Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + n, 1);
    if (t > last) break;
    if (x(t) > width - 40) break;
    made.push(svg("line", { x1: x(t), x2: x(t), y1: HEIGHT - MARGIN.bottom, y2: HEIGHT - MARGIN.bottom + 4, class: "grid" }),
      text(x(t), HEIGHT - 8, month(t), "middle"));
  }
  return made;
}

function text(x, y, content, anchor, name = "tick") {
  const made = svg("text", { x, y, "text-anchor": anchor, class: name });
  made.textContent = content;
  return made;
}

// Batches with many bad rows, joined where they touch.
function faults({ x, first, last }, spans) {
  const joined = [];
  for (const span of spans) {
    if (span.ratio < FAULT_RATIO) continue;
    const [start, end] = [Date.parse(span.start), Date.parse(span.end)];
    const open = joined.at(-1);
    if (open && start - open.end < 2 * DAY_MS) open.end = Math.max(open.end, end);
    else joined.push({ start, end });
  }
  return joined.filter(({ start, end }) => end >= first && start <= last).map(({ start, end }) => {
    const [a, b] = [x(Math.max(start, first)), x(Math.min(end, last))];
    const made = svg("rect", { x: a, width: Math.max(3, b - a), y: MARGIN.top, height: HEIGHT - MARGIN.top - MARGIN.bottom, class: "fault" });
    made.append(title(`rows in quarantine, ${day(start)} to ${day(end)}`));
    return made;
  });
}

function title(content) {
  const made = svg("title");
  made.textContent = content;
  return made;
}

function marks({ x, first, last }, decisions) {
  const made = [];
  let free = -Infinity;
  for (const item of decisions) {
    const t = Date.parse(item.event_time);
    if (t < first - DAY_MS || t > last + DAY_MS) continue;
    const at = x(Math.min(Math.max(t, first), last));
    if (item.topic === "model-deployed" || item.topic === "model-rolled-back") {
      const name = item.topic === "model-deployed" ? "deployed" : "back";
      const line = svg("line", { x1: at, x2: at, y1: MARGIN.top - 6, y2: HEIGHT - MARGIN.bottom, class: `mark ${name}` });
      line.append(title(`${day(t)}: ${item.text}`));
      made.push(line);
      if (at - free > 26) {
        made.push(text(at, MARGIN.top - 11, `${name === "back" ? "↩" : ""}v${item.version}`, "middle", `flag ${name}`));
        free = at;
      }
    } else if (item.drift) {
      const y = HEIGHT - MARGIN.bottom;
      const shape = svg("path", { d: `M${at} ${y - 11}l6 10h-12z`, class: `verdict ${item.drift.retrain ? "cure" : "no-cure"}` });
      shape.append(title(`${day(t)}: ${item.text}`));
      made.push(shape);
    }
  }
  return made;
}

// One line for each stretch of a version.
function lines({ x, y }, points, name) {
  const parts = [];
  for (const point of points) {
    const open = parts.at(-1);
    if (open?.version === point.version) open.points.push(point);
    else {
      const joint = name === "served" ? open?.points.at(-1) : undefined;
      parts.push({ version: point.version, points: joint ? [joint, point] : [point] });
    }
  }
  return parts.map(({ version, points: own }) => svg("polyline", {
    points: own.map((p) => `${x(p.t).toFixed(1)},${y(p.value).toFixed(1)}`).join(" "),
    class: `${name} hue-${version % HUES}`,
  }));
}

function follow(chart, tip, scale, served) {
  const cross = svg("line", { y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "cross", visibility: "hidden" });
  chart.append(cross);
  let at = served.length - 1;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), served.length - 1);
    const point = served[at];
    cross.setAttribute("x1", scale.x(point.t));
    cross.setAttribute("x2", scale.x(point.t));
    cross.setAttribute("visibility", "visible");
    tip.hidden = false;
    tip.textContent = `${day(point.t)} · v${point.version} · ${point.metric} ${figure(point.value)}`;
    tip.classList.toggle("left", scale.x(point.t) > scale.width / 2);
  };
  const hide = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * scale.width;
    let best = 0;
    served.forEach((point, index) => {
      if (Math.abs(scale.x(point.t) - wanted) < Math.abs(scale.x(served[best].t) - wanted)) best = index;
    });
    show(best);
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(at + step);
  });
}

function summary(served, decisions) {
  const last = served.at(-1);
  const count = decisions.filter((item) => item.topic === "model-deployed").length;
  return `${last.metric} over event time from ${day(served[0].t)} to ${day(last.t)}; `
    + `now ${figure(last.value)} with version ${last.version}; ${count} deployments. `
    + "Arrow keys read single values.";
}

function legend(place, metric, hasCandidate, pipeline, hasEstimates) {
  const entry = (name, words_) => element("span", { class: `key ${name}` }, words_);
  const entries = [entry("served", `${metric}, lower is better; a colour a version`)];
  if (hasCandidate) entries.push(entry("tried", "candidate beside it"));
  if (hasEstimates) entries.push(entry("thought", "estimated, labels awaited"));
  entries.push(entry("deployed", "version in service"));
  const causes = new Set([...pipeline.decisions.values()].filter((d) => d.drift)
    .map((d) => (d.drift.retrain ? "cure" : "no-cure")));
  if (causes.has("cure")) entries.push(entry("cure", "drift, retrain advised"));
  if (causes.has("no-cure")) entries.push(entry("no-cure", words("verdict without retraining")));
  if (pipeline.quarantine.spans.some((s) => s.ratio >= FAULT_RATIO)) entries.push(entry("fault", "rows in quarantine"));
  place.replaceChildren(...entries);
}
