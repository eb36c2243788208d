// What every figure shares: colours, axes, and plotly's ways.

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Of factorizations, in the order in which they are met; dense has the quiet colour.
const factorizations = [
  ...new Set(report.layers.flatMap((layer) => [
    ...layer.axes.map((axis) => axis.factorization),
    ...layer.choices.map((choice) => choice.factorization),
  ])),
].filter((name) => name !== "dense");
const SHAPES = ["circle", "square", "triangle-up", "cross", "pentagon", "star", "hexagon"];
const hue = (name) => (name === "dense" ? style("faint") : bright(palette[factorizations.indexOf(name) % palette.length]));

/** On dark paper a little lighter. */
const bright = (colour) => (document.documentElement.dataset.theme === "dark" ? mixed(colour, "#ffffff", 0.15) : colour);
const shape = (name) => (name === "dense" ? "x-thin-open" : SHAPES[factorizations.indexOf(name) % SHAPES.length]);

/** A mixture of two colours #rrggbb. */
function mixed(one, other, share) {
  const part = (colour, k) => parseInt(colour.slice(1 + 2 * k, 3 + 2 * k), 16);
  const blend = [0, 1, 2].map((k) => Math.round(part(one, k) + (part(other, k) - part(one, k)) * share));
  return `#${blend.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** The colour of a factorization for a share from 0 to 1; never so pale that the hue is lost. */
const shaded = (name, share) => mixed(style("paper"), hue(name), 0.3 + 0.7 * share);

const PAPER = 680; // pixels: what A4 and Letter have between their margins
let onPaper = false;

function base(height) {
  return {
    height,
    ...(onPaper ? { width: PAPER } : {}),
    autosize: true,
    showlegend: false,
    hovermode: "closest",
    dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 64, r: 24, t: 12, b: 48 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: style("ink") },
    hoverlabel: {
      align: "left", bgcolor: style("panel"), bordercolor: style("line"), font: { color: style("ink"), size: 12 },
    },
  };
}

function axis(title, more = {}) {
  const line = style("line");
  return {
    title: { text: plain(title), standoff: 8 }, gridcolor: line, linecolor: line, zeroline: false, ticks: "outside",
    tickcolor: line, ...more,
  };
}

/** An axis for measurements: logarithmic where they are positive and span decades. */
function measurementAxis(name, values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = known.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const title = sign(name) < 0 ? `${name} (more is better)` : name;
  if (isLogarithmic(low, high)) return axis(title, { type: "log", ...powers(low, high) });
  return axis(title, { tickformat: Math.max(Math.abs(low), Math.abs(high)) >= 1e4 ? "~s" : "~g", nticks: 8 });
}

/** Ticks of a logarithmic axis, with whole numbers: 1, 2, 5 of each power of ten where that is not too many. */
function powers(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades < 2.5 ? [1, 2, 5] : decades < 5 ? [1, 3] : [1];
  const values = [];
  for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)); power += 1) {
    steps.forEach((step) => values.push(Number(`${step}e${power}`)));
  }
  return { tickvals: values, ticktext: values.map(short) };
}

/** Draw or redraw a figure. */
function draw(node, traces, layout) {
  Plotly.react(node, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
}

/** Call `then` with the mark that was clicked. */
function onClick(node, then) {
  node.on("plotly_click", (event) => then(event.points[0]));
}

/** How many characters the names at the left of a figure may have, if they may take a share of its width. */
const nameRoom = (node, share) => Math.max(10, Math.min(36, Math.floor((node.clientWidth * share) / 7)));

/** Pixels for names of the figure's rows; plotly could measure them, at a fifth of the time that the page takes. */
function leftOf(names, size) {
  const longest = names.reduce((most, name) => Math.max(most, name.length), 0);
  return 14 + (longest + 2) * size * 0.62;
}

/** Marks in a legend, drawn as in the figures. */
const MARKS = {
  circle: '<circle cx="8" cy="7" r="4"/>',
  diamond: '<path d="M8 1l6 6-6 6-6-6z"/>',
  square: '<path d="M3 2h10v10h-10z"/>',
  star: '<path d="M8 0l2 5h5l-4 3.2 1.6 5.2-4.6-3.2-4.6 3.2 1.6-5.2-4-3.2h5z"/>',
  ring: '<circle cx="8" cy="7" r="5" fill="none" stroke-width="2"/>',
  "triangle-up": '<path d="M8 1l6 11h-12z"/>',
  cross: '<path d="M6 1h4v4h4v4h-4v4h-4v-4h-4v-4h4z"/>',
};

function legend(list, entries) {
  list.replaceChildren(...entries.map(({ mark, colour, text, swatch }) => {
    const sample = element("span", { "aria-hidden": "true" });
    if (swatch) {
      sample.className = "swatch";
      sample.style.background = swatch;
    } else {
      sample.innerHTML = `<svg viewBox="0 0 16 14" fill="${colour}" stroke="${colour}">${MARKS[mark] ?? MARKS.circle}</svg>`;
    }
    return element("li", {}, sample, ` ${text}`);
  }));
}
