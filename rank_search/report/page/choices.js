// What was chosen for each layer: over the front, and in the selected trial.

const rowHeight = () => (report.layers.length > 60 ? 14 : 20);

/** The axis of a layer that has this name under this factorization: its prior and full rank. */
const axisOf = (layer, factorization, name) =>
  layer.axes.find((axis) => axis.factorization === factorization && axis.axis === name);

/** How large the ranks of a choice are, 0 to 1: the mean of its axes. Against the prior, a quarter is 0, four times is 1. */
function share(layer, choice) {
  const shares = Object.entries(choice.values).flatMap(([name, value]) => {
    const known = axisOf(layer, choice.factorization, name);
    if (!known) return [];
    if (state.shade === "full") return [value / known.full];
    return [known.prior > 0 && value > 0 ? (Math.log2(value / known.prior) + 2) / 4 : 1];
  });
  if (!shares.length) return 0.7;
  return Math.min(1, Math.max(0, shares.reduce((sum, each) => sum + each, 0) / shares.length));
}

/** Each axis of a choice beside its prior and its full rank, and what was asked for where training has left less. */
function compared(layer, choice) {
  return Object.entries(choice.values).map(([name, value]) => {
    const known = axisOf(layer, choice.factorization, name);
    const asked = choice.asked?.[name] ?? value;
    const became = asked === value ? short(value) : `${short(asked)} → ${short(value)}`;
    return known ? `${name} ${became} of ${short(known.full)} (prior ${short(known.prior)})` : `${name} ${became}`;
  });
}

const layerNames = (node) => report.layers.map((layer) => middled(layer.name, nameRoom(node, 0.34)));

function layerAxis(node) {
  const height = rowHeight();
  return axis("", {
    range: [report.layers.length - 0.5, -0.5], showgrid: false, ticks: "", tickfont: { size: height > 15 ? 11 : 9 },
    tickvals: report.layers.map((_, row) => row),
    ticktext: layerNames(node).map((name, row) => (row === state.layer ? `<b>▸ ${plain(name)}</b>` : plain(name))),
  });
}

const layersLeft = (node) => leftOf(layerNames(node), 11);
const layersHeight = () => report.layers.length * rowHeight() + 70;

function drawHeat() {
  const node = byId("heat");
  const columns = someOf(ordered());
  const strongest = state.shade === "full" ? largestShare(columns) : 1;
  const traces = ["dense", ...factorizations].map((name) => heatTrace(name, columns, strongest)).filter((trace) => trace !== null);
  const layout = base(layersHeight());
  layout.margin = { ...layout.margin, l: layersLeft(node), r: 8, t: 8 };
  layout.yaxis = layerAxis(node);
  layout.xaxis = axis(`members, best ${state.order} first`, { ...columnTicks(node, columns), showgrid: false });
  layout.shapes = around(columns);
  draw(node, traces, layout);
  const away = state.trial !== null && !trials.member[state.trial] ? " The selected trial is not on the front." : "";
  byId("heat-said").textContent =
    `Each column is a member of the front${columns.length < members.length ? ` (${columns.length} of ${short(members.length)}, evenly)` : ""}, each row a layer. The stronger the colour, the larger the rank against ${state.shade === "full" ? `full rank (strongest: ${Math.round(100 * strongest)} % of it)` : "its prior (weakest: a quarter; strongest: four times)"}.${away}`;
  node.setAttribute("aria-label", `Choices of ${columns.length} members for ${report.layers.length} layers. The selected trial's are in a table below.`);
}

const MOST_COLUMNS = 160; // of more, none could be clicked

/** So many members, evenly, and the selected one. */
function someOf(row) {
  const every = Math.ceil(row.length / MOST_COLUMNS);
  return row.filter((place, k) => k % every === 0 || place === state.trial);
}

/** The largest share of full rank on the front, so that the shades tell its members apart. */
function largestShare(columns) {
  const shares = report.layers.flatMap((layer) => columns.map((place) => choiceOf(layer, place))
    .filter((choice) => choice !== null && choice.factorization !== "dense").map((choice) => share(layer, choice)));
  return shares.reduce((one, other) => Math.max(one, other), 0) || 1;
}

function heatTrace(name, columns, strongest) {
  const chosen = report.layers.map((layer) => columns.map((place) => {
    const choice = choiceOf(layer, place);
    return choice !== null && choice.factorization === name ? choice : null;
  }));
  if (!chosen.some((row) => row.some((choice) => choice !== null))) return null;
  const at = (row, column) => {
    const layer = report.layers[row];
    const choice = chosen[row][column];
    return [`<b>${plain(layer.name)}</b>`, `trial ${trials.number[columns[column]]}: ${plain(name)}`,
      ...compared(layer, choice).map(plain)].join("<br>");
  };
  return {
    type: "heatmap", zmin: 0, zmax: strongest, showscale: false, xgap: columns.length < 120 ? 1 : 0, ygap: 1, hoverongaps: false,
    colorscale: [[0, shaded(name, 0)], [1, shaded(name, 1)]], hovertemplate: "%{text}<extra></extra>",
    z: chosen.map((row, k) => row.map((choice) => (choice === null ? null : name === "dense" ? 0.2 * strongest : share(report.layers[k], choice)))),
    text: chosen.map((row, k) => row.map((choice, column) => (choice === null ? "" : at(k, column)))),
  };
}

/** Numbers of trials under the columns, as many as there is room for. */
function columnTicks(node, columns) {
  const digits = Math.max(...columns.map((place) => String(trials.number[place]).length), 1);
  const every = Math.max(1, Math.ceil((columns.length * (14 + 9 * digits)) / Math.max(120, node.clientWidth - layersLeft(node))));
  const shown = columns.map((_, column) => column).filter((column) => column % every === 0);
  return {
    tickvals: shown, ticktext: shown.map((column) => String(trials.number[columns[column]])), tickangle: 0,
    range: [-0.5, columns.length - 0.5],
  };
}

/** A frame around the selected trial's column. */
function around(columns) {
  const column = columns.indexOf(state.trial);
  const frame = { type: "rect", x0: column - 0.5, x1: column + 0.5, y0: -0.5, y1: report.layers.length - 0.5, line: { color: style("selected"), width: 2 } };
  return column < 0 ? [] : [frame];
}

function drawRanks() {
  const node = byId("ranks");
  const rows = report.layers.flatMap((layer, row) => ranksOf(layer, row));
  const of = (key, marker, name) => ({
    type: "scatter", mode: "markers", name, marker, customdata: rows.map((each) => each.row),
    x: rows.map((each) => each[key]), y: rows.map((each) => each.y), text: rows.map((each) => each.text),
    hovertemplate: "%{text}<extra></extra>",
  });
  const chosen = { size: 9, color: rows.map((each) => hue(each.name)), symbol: rows.map((each) => shape(each.name)), line: { width: 1.5, color: rows.map((each) => hue(each.name)) } };
  const widest = rows.reduce((most, each) => Math.max(most, each.chosen, each.prior ?? 0), 0) || 1;
  const layout = base(layersHeight());
  layout.margin = { ...layout.margin, l: layersLeft(node), t: 8 };
  layout.yaxis = { ...layerAxis(node), showgrid: true };
  layout.xaxis = axis("share of full rank", { range: [-0.02 * widest, 1.05 * widest], tickformat: ".0%", nticks: 6 });
  draw(node, [of("prior", { symbol: "line-ns-open", size: 12, color: style("ink"), line: { width: 2 } }, "prior"), of("chosen", chosen, "chosen")], layout);
  const which = state.trial === null ? "no trial" : `trial ${trials.number[state.trial]}`;
  byId("ranks-said").textContent = `What ${which} chose for each layer (coloured marks; × is dense) beside the rank prior (upright line), both as a share of full rank.`;
  node.setAttribute("aria-label", `Ranks that ${which} chose against prior and full rank. The table below has them.`);
}

/** A mark for each axis of the selected trial's choice; dense stands at full rank. */
function ranksOf(layer, row) {
  const choice = state.trial === null ? null : choiceOf(layer, state.trial);
  if (choice === null) return [];
  const title = `<b>${plain(layer.name)}</b> ${plain(choice.factorization)}`;
  const known = Object.entries(choice.values)
    .map(([name, value]) => ({ name, value, axis: axisOf(layer, choice.factorization, name) })).filter((each) => each.axis);
  if (!known.length) return [{ row, y: row, name: choice.factorization, chosen: 1, prior: null, text: title }];
  return known.map(({ name, value, axis: one }, k) => ({
    row, y: row + (known.length > 1 ? (k / (known.length - 1) - 0.5) * 0.5 : 0), name: choice.factorization,
    chosen: value / one.full, prior: one.prior / one.full,
    text: `${title}<br>${plain(name)} ${short(value)} of ${short(one.full)}, prior ${short(one.prior)}`,
  }));
}

function choiceLegend() {
  const used = ["dense", ...factorizations];
  legend(byId("choice-legend"), used.map((name) => ({
    text: name, swatch: name === "dense" ? shaded(name, 0.2) : `linear-gradient(90deg, ${shaded(name, 0)}, ${shaded(name, 1)})`,
  })));
}
