// Why: the spectra and priors of a layer, and which coordinates went with which objective.

const spectraOf = (layer) => (report.spectra ?? []).filter((each) => each.layer === layer.name);

function drawSpectra() {
  const layer = report.layers[state.layer];
  const figures = spectraOf(layer).map((spectrum) => {
    const node = element("div", { class: "plot", role: "img" });
    return { node, spectrum, figure: element("figure", {}, node, element("figcaption")) };
  });
  byId("spectra").querySelectorAll(".plot").forEach((node) => Plotly.purge(node));
  byId("spectra").replaceChildren(...figures.map(({ figure }) => figure));
  figures.forEach(({ node, spectrum, figure }) => drawSpectrum(node, figure.querySelector("figcaption"), layer, spectrum));
}

/** Singular values over their places; a prior and a chosen rank stand on the last value that they keep. */
function drawSpectrum(node, caption, layer, spectrum) {
  const axes = spectrum.axes.map(([factorization, name]) => ({ factorization, name, ...axisOf(layer, factorization, name) }));
  const values = spectrum.values.map((value) => (value > 0 ? value : null));
  const on = (rank) => values[Math.min(Math.max(Math.round(rank), 1), values.length) - 1] ?? null;
  const stand = (rank, marker, label) => ({
    type: "scatter", mode: "markers", name: label, x: [rank], y: [on(rank)], marker, hovertemplate: `${label}<extra></extra>`, showlegend: true,
  });
  const marksOf = axes.filter((each) => each.prior !== undefined).flatMap((each) => {
    const colour = hue(each.factorization);
    const title = plain(`${each.factorization} ${each.name}`);
    const choice = state.trial === null ? null : choiceOf(layer, state.trial);
    const chosen = choice?.factorization === each.factorization ? choice.values[each.name] : undefined;
    const prior = { symbol: `${shape(each.factorization)}-open`, size: 12, color: colour, line: { width: 2 } };
    return [
      stand(each.prior, prior, `${title}: prior ${short(each.prior)}`),
      ...(chosen === undefined ? [] : [stand(chosen, { symbol: shape(each.factorization), size: 12, color: colour }, `${title}: chosen ${short(chosen)}`)]),
    ];
  });
  const layout = base(300);
  layout.showlegend = true;
  layout.legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" };
  layout.margin.t = 20 + 18 * Math.ceil(marksOf.length / 2);
  layout.xaxis = axis("rank", { rangemode: "tozero", nticks: 8 });
  const known = values.filter((value) => value !== null);
  layout.yaxis = axis("singular value", { type: "log", ...powers(Math.min(...known), Math.max(...known)) });
  const line = { type: "scatter", mode: "lines+markers", x: values.map((_, k) => k + 1), y: values, marker: { size: 3 }, line: { color: style("quiet"), width: 1.5 }, hovertemplate: "%{x}: %{y:.4g}<extra></extra>", showlegend: false };
  draw(node, [line, ...marksOf], layout);
  caption.textContent = `${layer.name}: singular values of the unfolding behind ${axes.map((each) => `${each.factorization} ${each.name}`).join(", ")}.`;
  node.setAttribute("aria-label", `${caption.textContent} The table below has the ranks.`);
}

function listPriors() {
  const layer = report.layers[state.layer];
  if (!layer) return;
  const choice = state.trial === null ? null : choiceOf(layer, state.trial);
  const names = ["axis", "full rank", "rank prior", "chosen", "break-even", "energy kept", "noise variance"];
  const rows = layer.axes.map((each) => {
    const chosen = choice?.factorization === each.factorization ? choice.values[each.axis] : null;
    const cells = [each.full, each.prior, chosen, each.break_even, each.energy_kept, each.noise_variance];
    return element("tr", {}, element("th", { scope: "row", class: "words" }, `${each.factorization} ${each.axis}`),
      ...cells.map((value) => element("td", {}, short(value))));
  });
  const head = element("tr", {}, ...names.map((name, k) => element("th", { scope: "col", ...(k ? {} : { class: "words" }) }, name)));
  const said = `${layer.name}${choice === null ? "" : `: trial ${trials.number[state.trial]} chose ${inWords(choice)}`}`;
  byId("priors").replaceChildren(element("caption", { class: "words" }, said), element("thead", {}, head), element("tbody", {}, ...rows));
}

const MOST = 15; // coordinates in the figure

function drawImportance() {
  const node = byId("importance");
  const strongest = new Map();
  Object.values(report.importance).flat().forEach((each) =>
    strongest.set(each.coordinate, Math.max(strongest.get(each.coordinate) ?? 0, Math.abs(each.strength))));
  const names = [...strongest.keys()].sort((one, other) => strongest.get(other) - strongest.get(one)).slice(0, MOST);
  if (!names.length) {
    byId("importance-said").textContent = "Too few complete trials with coordinates, or none of them varied.";
    return;
  }
  const shown = names.map((name) => middled(name, nameRoom(node, 0.5)));
  const layout = base(names.length * (8 + 10 * objectives.length) + 110);
  layout.margin = { ...layout.margin, l: leftOf(shown, 12), t: 34 };
  layout.showlegend = true;
  layout.legend = { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", traceorder: "normal" };
  layout.barmode = "group";
  layout.xaxis = axis("rank correlation", { range: [-1.05, 1.05], zeroline: true, zerolinecolor: style("quiet"), nticks: 9 });
  layout.yaxis = axis("", { autorange: "reversed", ticks: "", tickvals: names.map((_, row) => row), ticktext: shown.map(plain), showgrid: false });
  draw(node, objectives.map((objective, k) => importanceTrace(objective, k, names)), layout);
  const first = objectives.map((objective) => report.importance[objective]?.[0]).map((each, k) =>
    (each ? `${objectives[k]}: ${each.coordinate} (${short(each.strength)})` : "")).filter(Boolean).join("; ");
  byId("importance-said").textContent =
    `The ${names.length} coordinates that went most closely with an objective over all trials (Spearman's ρ; for a factorization the correlation ratio, which has no sign). Strongest: ${first}. Association is not cause: a sampler moves many coordinates together.`;
  node.setAttribute("aria-label", byId("importance-said").textContent);
}

function importanceTrace(objective, k, names) {
  const found = new Map(report.importance[objective].map((each) => [each.coordinate, each]));
  return {
    type: "bar", orientation: "h", name: plain(objective), y: names.map((_, row) => row),
    x: names.map((name) => found.get(name)?.strength ?? null), text: names.map(plain), textposition: "none",
    marker: { color: bright(palette[k % palette.length]), pattern: { fillmode: "overlay", shape: ["", "/", ".", "x", "-"][k % 5], fgcolor: style("paper"), size: 5, solidity: 0.25 } },
    hovertemplate: `<b>%{text}</b><br>${plain(objective)} %{x:.4g}<extra></extra>`,
  };
}
