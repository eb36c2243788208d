// What is selected, who follows it, and how numbers and names are written.

const report = JSON.parse(document.getElementById("contents").textContent);
const trials = report.trials;
const objectives = report.study.objectives.map((each) => each.name);
const placeOf = new Map(trials.number.map((number, place) => [number, place]));
const members = trials.number.map((_, place) => place).filter((place) => trials.member[place]);

const state = { trial: null, layer: 0, order: objectives[0], shade: "full", clock: "trials" };
const followers = { trial: [], layer: [], order: [], shade: [], clock: [] };

/** Call `follow` now, and whenever one of the named parts of the state has changed. */
function follows(names, follow) {
  names.forEach((name) => followers[name].push(follow));
  follow();
}

function change(name, value) {
  if (state[name] === value) return;
  state[name] = value;
  followers[name].forEach((follow) => follow());
}

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; text stays text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

const { digits, units, palette, log_span: logSpan } = report.look;

/** A few significant digits, with a unit from ten thousand on: `short_number` in Python. */
function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  if (size < 1e4 || size >= 1e15) return String(rounded);
  const [unit, letter] = units.find(([least]) => size >= least);
  return Number((rounded / unit).toPrecision(digits)) + letter;
}

/** Whether an axis from the one value to the other is logarithmic: `is_logarithmic` in Python. */
const isLogarithmic = (low, high) => low > 0 && high > logSpan * low;

/** Text as plotly takes it, which reads some HTML in every text. */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** A long name, without its middle: both ends of a layer's name say which it is. */
function middled(name, most) {
  if (name.length <= most) return name;
  const head = Math.floor((most - 1) / 3);
  return name.slice(0, head) + "…" + name.slice(name.length - (most - 1 - head));
}

/** Half of the 95 % interval of a measurement, or null. */
const barOf = (name, place) => trials.error_bars[name]?.[place] ?? null;

/** A measurement with its error bar, if it has one. */
const withBar = (name, place) => (barOf(name, place) === null ? short(measured(name, place)) : `${short(measured(name, place))} ± ${Number(barOf(name, place).toPrecision(2))}`);

const measured = (name, place) => trials.measurements[name]?.[place] ?? null;

/** Where a measurement is better when larger, this turns the order around. */
const sign = (name) => (report.study.objectives.find((each) => each.name === name)?.direction === "maximize" ? -1 : 1);

/** The members of the front, best first in the measurement that is asked for; those without it come last. */
function ordered() {
  const loss = (place) => {
    const value = measured(state.order, place);
    return value === null ? Infinity : sign(state.order) * value;
  };
  return [...members].sort((one, other) => loss(one) - loss(other) || one - other);
}

/** What a layer became in a trial: `{factorization, values}`, or null if it is not in the point. */
function choiceOf(layer, place) {
  const pick = layer.picks[place];
  return pick === undefined || pick < 0 ? null : layer.choices[pick];
}

/** A choice in words: `tucker2, rank_out 12, rank_in 6`. */
function inWords(choice) {
  if (choice === null) return "–";
  const values = Object.entries(choice.values).map(([axis, value]) => `${axis} ${short(value)}`);
  return [choice.factorization, ...values].join(", ");
}

function describe(place) {
  return objectives.map((name) => `${name} ${short(measured(name, place))}`).join(", ");
}
