// Follows the stream, keeps what it says, and draws what has changed.

import { Chain } from "./chain.js";
import { drawChart } from "./chart.js";
import { drawDecisions } from "./decisions.js";
import { day, element, plural } from "./format.js";
import { drawAlerts, drawVerdict, drawWindows } from "./standing.js";
import { drawLetters, drawSummary, drawVersions, drawWaiting } from "./panels.js";
import { askVersion, drawBatches, drawDatasets, drawQuality } from "./quality.js";

const MAX_DECISIONS = 5000;
const log = { counts: {}, pipelines: {}, letters: { counts: {}, last: [] } };
const chain = new Chain(document.querySelector("#chain .stage"));
let chosen = decodeURIComponent(location.hash.slice(1));
let drawing = false;

function pipelineOf(name) {
  log.pipelines[name] ??= {
    decisions: new Map(), points: new Map(), versions: [], waiting: [], spec: null,
    serving: null, job: null, event_time: null,
    verdict: null, alerts: [], windows: null, proposal: null, quality: null, datasets: null, quarantine: { spans: [] },
  };
  return log.pipelines[name];
}

function take(change) {
  if (change.first) log.pipelines = {};
  const before = log.counts;
  log.counts = change.counts;
  for (const [name, part] of Object.entries(change.pipelines)) {
    const { decisions = [], points = [], ...standing } = part;
    const kept = pipelineOf(name);
    for (const item of decisions) kept.decisions.set(item.id, item);
    for (const point of points) kept.points.set(point.id, point);
    Object.assign(kept, standing);
    while (kept.decisions.size > MAX_DECISIONS) {
      kept.decisions.delete(kept.decisions.keys().next().value);
    }
  }
  if (change.dead_letters) log.letters = change.dead_letters;
  if (!change.first) chain.pulse(before[chosen] ?? {}, log.counts[chosen] ?? {});
  redraw();
}

function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

function choose(name) {
  chosen = name;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  draw();
}

function draw() {
  drawing = false;
  const names = Object.keys(log.pipelines).filter((n) => log.pipelines[n].spec);
  if (!names.includes(chosen)) chosen = names[0] ?? "";
  drawTabs(names);
  const pipeline = pipelineOf(chosen);
  const counts = log.counts[chosen] ?? {};
  document.querySelector("#clock").textContent = pipeline.event_time
    ? `data until ${day(pipeline.event_time)}` : "";
  document.body.classList.toggle("empty", names.length === 0);
  drawWaiting(document.querySelector("#waiting"), pipeline);
  drawSummary(document.querySelector("#summary"), pipeline, counts, chosen);
  chain.draw(pipeline, counts, log.letters.counts);
  drawChart(document.querySelector("#performance"), pipeline);
  drawVersions(document.querySelector("#versions .scroll"), pipeline);
  drawQuality(document.querySelector("#quality"), pipeline);
  drawBatches(document.querySelector("#batches"), pipeline, chosen);
  drawDatasets(document.querySelector("#datasets"), pipeline, chosen, redraw);
  drawWindows(document.querySelector("#performance .windows"), pipeline);
  drawAlerts(document.querySelector("#alerts"), pipeline);
  drawVerdict(document.querySelector("#verdict"), pipeline);
  drawLetters(document.querySelector("#letters"), log.letters);
  drawDecisions(document.querySelector("#decisions .list"), pipeline);
}

function drawTabs(names) {
  const nav = document.querySelector("#pipelines");
  const key = JSON.stringify([names, chosen]);
  if (nav.dataset.key === key) return;
  nav.dataset.key = key;
  nav.replaceChildren(...names.map((name) => element("button", {
    type: "button", textContent: name, "aria-current": name === chosen ? "true" : "false",
    onclick: () => choose(name),
  })));
}

function status(word, state) {
  const live = document.querySelector("#live");
  live.className = state;
  live.querySelector(".word").textContent = word;
}

function follow() {
  const stream = new EventSource("/api/stream");
  stream.onmessage = (message) => {
    status("live", "good");
    take(JSON.parse(message.data));
  };
  stream.addEventListener("waiting", (message) => {
    const { read } = JSON.parse(message.data);
    if (!Object.keys(log.counts).length) status(`reading the log: ${plural(read, "event")}`, "");
  });
  stream.onerror = async () => {
    status("connection lost, trying again", "bad");
    if (stream.readyState !== EventSource.CLOSED) return;
    // Refused, not lost: the token may have changed, then the door says what to do.
    const answer = await fetch("/api/about").catch(() => null);
    if (answer?.status === 401) location.reload();
    else setTimeout(follow, 2000);
  };
}

async function about() {
  const answer = await fetch("/api/about");
  const { topics, links } = await answer.json();
  chain.connect(topics);
  document.querySelector("#links").replaceChildren(
    ...Object.entries(links).flatMap(([name, url]) => [
      element("a", { href: url, textContent: name, rel: "noreferrer" }), " ",
    ]),
    "Decisions by hand: driftloop approve, reject, rollback; the whole story of a "
    + "version: driftloop why.",
  );
}

window.addEventListener("resize", redraw);
askVersion(document.querySelector("#datasets"), () => chosen);
window.addEventListener("hashchange", () => { chosen = decodeURIComponent(location.hash.slice(1)); draw(); });
await about();
draw();
follow();
