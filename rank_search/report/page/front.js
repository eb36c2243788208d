// The front in every pair of objectives.

const MANY = 800; // of more trials behind a front, one is drawn in each cell of a grid: others would cover each other
const CELLS = [64, 44];
const MANY_MEMBERS = 300; // the line of a front goes through all of them, marks stand on one in each cell
const MEMBER_CELLS = [160, 110];

function panel(pair) {
  const node = element("div", { class: "plot", role: "img" });
  const caption = element("figcaption");
  byId("pairs").append(element("figure", {}, node, caption));
  const crowd = thinned(pair);
  const redraw = () => drawPanel(node, pair, crowd);
  const few = crowd.drawn.length < crowd.all;
  caption.textContent =
    `${pair.y} against ${pair.x}: ${pair.front.length === 1 ? "1 trial is" : `${short(pair.front.length)} trials are`} on the front of these two.` +
    (few ? ` Of ${short(crowd.all)} others ${short(crowd.drawn.length)} are drawn: one where several would cover each other.` : "");
  node.setAttribute("aria-label", `${caption.textContent} The table below has the same.`);
  return { node, pair, redraw };
}

/** The trials behind the pair's front, one for each cell of a grid if they are many, and how many there are. */
function thinned(pair) {
  const front = new Set(pair.front);
  const behind = trials.number.map((_, place) => place).filter(
    (place) => !front.has(place) && measured(pair.x, place) !== null && measured(pair.y, place) !== null,
  );
  const inOrder = [...behind.filter((place) => trials.member[place]), ...behind];
  const drawn = behind.length <= MANY ? behind : onePerCell(pair, inOrder, CELLS);
  return { drawn, all: behind.length };
}

/** The first of these trials in each cell of a grid over all of them. */
function onePerCell(pair, places, counts) {
  const cells = [pair.x, pair.y].map((name, k) => cellOf(name, places, counts[k]));
  const first = new Map();
  places.forEach((place) => {
    const cell = `${cells[0](place)} ${cells[1](place)}`;
    if (!first.has(cell)) first.set(cell, place);
  });
  return [...first.values()];
}

function cellOf(name, places, count) {
  const values = places.map((place) => measured(name, place));
  const low = values.reduce((one, other) => Math.min(one, other), Infinity);
  const high = values.reduce((one, other) => Math.max(one, other), -Infinity);
  const logarithmic = isLogarithmic(low, high);
  const scale = (value) => (logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low || 1));
  return (place) => Math.floor(scale(measured(name, place)) * count);
}

const hover = (place) =>
  [`<b>trial ${trials.number[place]}</b> ${plain(trials.label[place])}`]
    .concat(Object.keys(trials.measurements).filter((name) => measured(name, place) !== null)
      .map((name) => `${plain(name)} ${withBar(name, place)}`))
    .concat(trials.state[place] === "complete" ? [] : [plain(trials.state[place])])
    .join("<br>");

function marks(pair, places, marker, more = {}) {
  return {
    type: "scatter", mode: "markers", marker, hovertemplate: "%{text}<extra></extra>", customdata: places,
    x: places.map((place) => measured(pair.x, place)), y: places.map((place) => measured(pair.y, place)),
    text: places.map(hover), ...more,
  };
}

/** A point that is no trial: the dense model, a reference. */
function landmark(pair, name, values, marker, textposition) {
  if (values[pair.x] === undefined || values[pair.y] === undefined) return [];
  return [{
    type: "scatter", mode: "markers+text", marker, textposition, text: [plain(middled(name, 24))], customdata: [null],
    x: [values[pair.x]], y: [values[pair.y]], cliponaxis: false, textfont: { color: marker.color },
    hovertext: [`<b>${plain(name)}</b><br>${plain(pair.x)} ${short(values[pair.x])}<br>${plain(pair.y)} ${short(values[pair.y])}`],
    hovertemplate: "%{hovertext}<extra></extra>",
  }];
}

/** What others reach on the same signal: a curve, where it has both measurements. */
function curve(pair, each, number) {
  const [x, y] = [each.values[pair.x], each.values[pair.y]];
  if (x === undefined || y === undefined) return [];
  const dash = ["dash", "dot", "dashdot", "longdash"][number % 4];
  const text = x.map((value, place) => `<b>${plain(each.name)}</b><br>${plain(pair.x)} ${short(value)}<br>${plain(pair.y)} ${short(y[place])}`);
  return [
    { type: "scatter", mode: "lines+markers", x, y, customdata: x.map(() => null), hovertext: text, hovertemplate: "%{hovertext}<extra></extra>",
      line: { color: style("reference"), width: 1.3, dash }, marker: { color: style("reference"), size: 4 } },
    { type: "scatter", mode: "text", x: x.slice(-1), y: y.slice(-1), text: [plain(middled(each.name, 24))], textposition: "bottom right",
      customdata: [null], cliponaxis: false, hoverinfo: "skip", textfont: { color: style("reference") } },
  ];
}

const marked = (pair) => (pair.front.length <= MANY_MEMBERS ? pair.front : onePerCell(pair, pair.front, MEMBER_CELLS));

/** Error bars of the front, of measurements that have them, unless they would cover each other. */
function bars(pair) {
  const of = (name) => ({ type: "data", array: marked(pair).map((place) => barOf(name, place)), visible: true, thickness: 1, width: 0, color: style("behind") });
  const wanted = (name) => trials.error_bars[name] !== undefined && marked(pair).length <= 60;
  return { ...(wanted(pair.x) ? { error_x: of(pair.x) } : {}), ...(wanted(pair.y) ? { error_y: of(pair.y) } : {}) };
}

function traces(pair, crowd) {
  const faint = crowd.drawn.filter((place) => !trials.member[place]);
  const elsewhere = crowd.drawn.filter((place) => trials.member[place]);
  const step = { color: style("front"), width: 1.5, shape: sign(pair.x) < 0 ? "vh" : "hv" };
  const knee = report.knee === null ? [] : [placeOf.get(report.knee)];
  return [
    marks(pair, faint, { color: style("faint"), size: 5, opacity: 0.45 }),
    marks(pair, elsewhere, { color: style("behind"), size: 6, symbol: "circle-open" }),
    marks(pair, pair.front, {}, { mode: "lines", line: step, hoverinfo: "skip", hovertemplate: null }),
    marks(pair, marked(pair), { color: style("front"), size: 7 }, bars(pair)),
    ...report.curves.flatMap((each, number) => curve(pair, each, number)),
    ...report.references.flatMap((each) =>
      landmark(pair, each.name, each.values, { symbol: "square", size: 9, color: style("reference") }, "bottom center")),
    ...landmark(pair, "dense", report.study.dense, { symbol: "diamond", size: 11, color: style("dense") }, "bottom left"),
    ...knee.map((place) => ({
      ...marks(pair, [place], { symbol: "star", size: 13, color: style("knee") }),
      mode: "markers+text", text: [`knee: ${trials.number[place]}`], textposition: "bottom left",
      textfont: { color: style("knee") }, hovertext: [hover(place)], hovertemplate: "%{hovertext}<extra></extra>",
    })),
    marks(pair, selected(pair), { symbol: "circle-open", size: 15, color: style("selected"), line: { width: 2.5 } }, { hoverinfo: "skip" }),
  ];
}

function drawPanel(node, pair, crowd) {
  const shown = [...crowd.drawn, ...pair.front];
  const values = (name) => [
    ...report.curves.flatMap((each) => each.values[name] ?? []),
    ...shown.map((place) => measured(name, place)),
    ...[report.study.dense, ...report.references.map((each) => each.values)].map((each) => each[name] ?? null),
  ];
  const layout = base(report.pairs.length > 1 ? 340 : 430);
  layout.xaxis = measurementAxis(pair.x, values(pair.x));
  layout.yaxis = measurementAxis(pair.y, values(pair.y));
  draw(node, traces(pair, crowd), layout);
}

/** The selected trial, if it has a place in the panel: in a list. */
const selected = (pair) =>
  [state.trial].filter((place) => place !== null && measured(pair.x, place) !== null && measured(pair.y, place) !== null);

/** Put the ring, which is the last trace, around the selected trial. */
function moveRing(node, pair) {
  const at = (name) => [selected(pair).map((place) => measured(name, place))];
  Plotly.restyle(node, { x: at(pair.x), y: at(pair.y) }, [node.data.length - 1]);
}

function frontLegend() {
  legend(byId("front-legend"), [
    { mark: "circle", colour: style("front"), text: "on the front of these two" },
    ...(report.pairs.length > 1 ? [{ mark: "ring", colour: style("behind"), text: "on the front of all" }] : []),
    { mark: "circle", colour: style("faint"), text: "behind it" },
    { mark: "diamond", colour: style("dense"), text: "dense model" },
    ...(report.curves.length ? [{ mark: "circle", colour: style("reference"), text: report.curves.map((each) => each.name).join(", ") }] : []),
    ...(report.references.length ? [{ mark: "square", colour: style("reference"), text: "reference" }] : []),
    { mark: "star", colour: style("knee"), text: "knee" },
    { mark: "ring", colour: style("selected"), text: "selected" },
  ]);
}
