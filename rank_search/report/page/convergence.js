// How the hypervolume grew.

function drawConvergence() {
  const node = byId("convergence");
  const found = report.convergence;
  if (!found.trials.length) {
    byId("convergence-said").textContent = "No trial has been recorded yet.";
    return;
  }
  const over = found[state.clock];
  const end = over[over.length - 1];
  const layout = base(320);
  layout.xaxis = axis(state.clock === "trials" ? "trials recorded" : "hours since the first trial began", { rangemode: "tozero", nticks: 8 });
  layout.yaxis = axis("hypervolume", { rangemode: "normal", nticks: 7, tickformat: ".4~g" });
  const traces = [{
    type: "scatter", mode: "lines", x: over, y: found.shares, line: { color: style("front"), width: 2, shape: "hv" },
    text: over.map((_, k) => `after ${short(found.trials[k])} trials, ${short(found.hours[k])} h<br>hypervolume ${short(found.shares[k])}`),
    hovertemplate: "%{text}<extra></extra>",
  }];
  if (found.seeds !== null) {
    traces.push({
      type: "scatter", mode: "lines", x: [0, end], y: [found.seeds, found.seeds], line: { color: style("dense"), dash: "dash", width: 1.5 }, hoverinfo: "skip",
    });
    layout.annotations = [{
      x: end, y: found.seeds, xanchor: "right", yanchor: "top", yshift: -3, showarrow: false, text: "seed points alone",
      font: { color: style("dense") },
    }];
  }
  draw(node, traces, layout);
  const last = found.shares[found.shares.length - 1];
  const half = found.shares[found.trials.findIndex((count) => count >= found.trials[found.trials.length - 1] / 2)];
  const seeds = found.seeds === null ? "" : ` The seed points alone are worth ${short(found.seeds)}.`;
  byId("convergence-said").textContent =
    `The share of the box between the ideal and the worst that is tolerated (see the knee) that the front dominates: ${short(last)} after ${short(found.trials[found.trials.length - 1])} trials, ${short(half)} after half of them.${seeds}`;
  node.setAttribute("aria-label", byId("convergence-said").textContent);
}
