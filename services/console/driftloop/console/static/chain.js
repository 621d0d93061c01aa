// The chain as it runs: services as cards, topics as lines, events as moving dots.

import { element, number, percent, plural, svg, words } from "./format.js";

const SERVICES = ["ingest", "validator", "scorer", "monitor", "trainer", "registry",
  "deployer"];
const MAX_DOTS = 5; // of one topic at a time; more says no more
const DOT_MS = 900;
const QUIET = new Set(["pipeline-applied", "training-progressed", "alert-raised",
  "alert-resolved", "alert-acknowledged", "alerts-silenced", "alert-delivered"]);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Chain {
  constructor(stage) {
    this.stage = stage;
    this.lines = svg("svg", { class: "lines", "aria-hidden": "true" });
    this.cards = {};
    this.topics = [];
    const list = element("ol", { class: "cards" });
    for (const name of ["upstream", ...SERVICES]) {
      const card = element("li", { class: `card ${name}` },
        element("h3", { textContent: name }),
        element("p", { class: "what" }), element("p", { class: "more" }),
        element("progress", { max: 1, value: 0, hidden: true, "aria-label": "training" }),
        element("p", { class: "letters", hidden: true }));
      this.cards[name] = card;
      list.append(card);
    }
    stage.append(this.lines, list);
  }

  connect(topics) {
    this.topics = topics.filter((topic) => !QUIET.has(topic.name));
  }

  draw(pipeline, counts, letters) {
    const told = said(pipeline, counts);
    for (const [name, card] of Object.entries(this.cards)) {
      const [what, more = ""] = told[name];
      card.querySelector(".what").textContent = what;
      card.querySelector(".more").textContent = more;
      const badge = card.querySelector(".letters");
      badge.hidden = !letters[name];
      badge.textContent = letters[name] ? plural(letters[name], "dead letter") : "";
      card.classList.toggle("bad", Boolean(letters[name]));
    }
    const bar = this.cards.trainer.querySelector("progress");
    bar.hidden = !pipeline.job;
    bar.value = pipeline.job?.ratio ?? 0;
    this.cards.trainer.classList.toggle("busy", Boolean(pipeline.job));
    this.cards.registry.classList.toggle("person", pipeline.waiting.length > 0);
    this.drawLines();
  }

  // Lines from card to card, one for each pair of services that a topic joins.
  drawLines() {
    const box = this.stage.getBoundingClientRect();
    const size = `${Math.round(box.width)}x${Math.round(box.height)}/${this.topics.length}`;
    if (this.size === size) return;
    this.size = size;
    this.paths = {};
    this.lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    this.lines.replaceChildren(svg("defs", {}, svg("marker", {
      id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
      orient: "auto-start-reverse" }, svg("path", { d: "M0 0.8L7 4L0 7.2z", class: "head" }))));
    const drawn = {};
    for (const topic of this.topics) {
      for (const from of topic.from) {
        for (const to of topic.to) {
          const [start, end] = [this.cards[from], this.cards[to]];
          if (!start || !end || start === end) continue;
          const key = `${from}>${to}`;
          drawn[key] ??= this.line(start, end, box);
          (this.paths[topic.name] ??= []).push(drawn[key]);
        }
      }
    }
  }

  line(start, end, box) {
    const a = start.getBoundingClientRect();
    const b = end.getBoundingClientRect();
    const middle = (r) => ({ x: r.left - box.left + r.width / 2, y: r.top - box.top + r.height / 2 });
    const [p, q] = [middle(a), middle(b)];
    const sameRow = Math.abs(p.y - q.y) < a.height / 2;
    let d;
    if (sameRow && Math.abs(p.x - q.x) < a.width * 1.7) {
      const side = Math.sign(q.x - p.x);
      d = `M${p.x + side * a.width / 2} ${p.y}L${q.x - side * b.width / 2} ${q.y}`;
    } else if (sameRow) { // round what stands between, on the outside
      const out = p.y < box.height / 2 ? -1 : 1;
      const [y1, y2] = [p.y + out * a.height / 2, q.y + out * b.height / 2];
      const bend = out * 34;
      d = `M${p.x} ${y1}C${p.x} ${y1 + bend} ${q.x} ${y2 + bend} ${q.x} ${y2}`;
    } else {
      const down = Math.sign(q.y - p.y);
      const [y1, y2] = [p.y + down * a.height / 2, q.y - down * b.height / 2];
      const shift = Math.sign(q.x - p.x) * Math.min(24, a.width / 6);
      const half = (y2 - y1) / 2;
      d = `M${p.x + shift} ${y1}C${p.x + shift} ${y1 + half} ${q.x - shift} ${y2 - half} ${q.x - shift} ${y2}`;
    }
    const path = svg("path", { d, class: "line", "marker-end": "url(#arrow)" });
    this.lines.append(path);
    return path;
  }

  pulse(before, now) {
    if (document.hidden) return;
    for (const topic of this.topics) {
      const fresh = (now[topic.name]?.[0] ?? 0) - (before[topic.name]?.[0] ?? 0);
      if (fresh <= 0) continue;
      for (const name of topic.from) this.flash(name);
      if (calm.matches) continue;
      for (const path of this.paths?.[topic.name] ?? []) {
        for (let n = 0; n < Math.min(fresh, MAX_DOTS); n += 1) this.dot(path, topic.name, n);
      }
    }
  }

  flash(name) {
    this.cards[name]?.animate?.(
      [{ borderColor: "var(--accent)" }, { borderColor: "var(--line)" }], DOT_MS);
  }

  dot(path, topic, place) {
    const length = path.getTotalLength();
    const dot = svg("circle", { r: 3.2, class: `dot ${topic}` });
    this.lines.append(dot);
    const begin = performance.now() + place * (DOT_MS / MAX_DOTS / 1.4);
    const step = (now) => {
      const way = (now - begin) / DOT_MS;
      if (way >= 1 || !path.isConnected) {
        dot.remove();
        return;
      }
      const at = path.getPointAtLength(length * Math.max(0, way));
      dot.setAttribute("cx", at.x);
      dot.setAttribute("cy", at.y);
      dot.setAttribute("opacity", way < 0 ? 0 : Math.min(1, 4 * (1 - way)));
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}

function training(job) {
  const parts = [words(job.step)];
  if (job.loss !== null) parts.push(`loss ${figure(job.loss)}`);
  if (job.eta_seconds !== null) parts.push(`${number(Math.ceil(job.eta_seconds))} s left`);
  return parts.join(" · ");
}

function reach({ share, ahead }) {
  if (ahead.length) return `on ${plural(ahead.length, "replica")}`;
  return share ? percent(share) : "in shadow";
}

function said(pipeline, counts) {
  const events = (topic) => counts[topic]?.[0] ?? 0;
  const rows = (topic) => counts[topic]?.[1] ?? 0;
  const { serving, job } = pipeline;
  const champion = serving?.champion;
  const rejected = rows("batch-rejected");
  const candidate = serving?.candidate ? `v${serving.candidate} ${reach(serving)}` : "";
  return {
    upstream: [plural(events("observation-arrived") + events("label-arrived"), "message")],
    ingest: [plural(rows("batch-ingested"), "row"), plural(events("batch-ingested"), "batch", "batches")],
    validator: [`${number(rows("batch-validated"))} good`,
      rejected ? `${number(rejected)} quarantined` : ""],
    scorer: [`${number(rows("batch-scored"))} scored`, champion ? `by v${champion}` : ""],
    monitor: [plural(events("performance-measured"), "measurement"),
      plural(events("drift-detected"), "verdict")],
    trainer: job
      ? [`training ${percent(job.ratio)}`, training(job)]
      : [`${number(events("model-trained"))} trained`,
        events("training-skipped") ? `${number(events("training-skipped"))} not needed` : ""],
    registry: [plural(pipeline.versions.length, "version"),
      pipeline.waiting.length ? `${pipeline.waiting.length} waiting for a person` : ""],
    deployer: [champion ? `v${champion} in service` : "nothing in service", candidate],
  };
}
