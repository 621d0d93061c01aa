// Text and elements: everything that comes from the log is set as text, never as markup.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct",
  "Nov", "Dec"];
const pad = (number) => String(number).padStart(2, "0");

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Event time, in UTC.
export function day(iso) {
  const at = new Date(iso);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
}

export function month(at) {
  const date = new Date(at);
  return `${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
}

// Wall clock, in the reader's zone.
export function clock(iso) {
  const at = new Date(iso);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

// Event time with its hour, in UTC.
export function moment(iso) {
  const at = new Date(iso);
  return `${day(iso)} ${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}`;
}

export function number(value) {
  return Number(value).toLocaleString("en-GB");
}

export function figure(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en-GB", { maximumSignificantDigits: 3 });
}

export function percent(ratio) {
  return `${Math.round(ratio * 100)} %`;
}

export function words(name) {
  return String(name).replaceAll("_", " ").replaceAll("-", " ");
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = count;
  let place = 0;
  while (size >= 1024 && place < units.length - 1) {
    size /= 1024;
    place += 1;
  }
  return `${place ? size.toFixed(1) : size} ${units[place]}`;
}

// Whether a part of the page has to be drawn anew; remembers what it was drawn from.
const drawn = new WeakMap();

export function fresh(place, what) {
  const key = JSON.stringify(what);
  if (drawn.get(place) === key) return false;
  drawn.set(place, key);
  return true;
}

// A head is text or { text, class }; a cell is a child or { class, child }.
export function table(heads, rows) {
  return element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head) =>
      element("th", { scope: "col", class: head.class, textContent: head.text ?? head })))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) =>
      element("td", { class: cell?.class && cell.child !== undefined ? cell.class : null },
        cell?.child !== undefined ? cell.child : cell))))));
}
