// Putting it together: who follows what, the bar, the colours, and paper.

const dark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null; // until the reader chooses, the system's

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
  byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

const theme = () => chosenTheme ?? (dark.matches ? "dark" : "light");

let panels = [];

/** Every figure anew: after a change of colours or of width. */
function redraw() {
  frontLegend();
  choiceLegend();
  panels.forEach((each) => each.redraw());
  if (report.layers.length) [drawHeat, drawRanks, drawSpectra].forEach((each) => each());
  drawImportance();
  drawConvergence();
}

function repaint() {
  paint(theme());
  redraw();
}

function step(by) {
  const row = ordered();
  if (!row.length) return;
  const at = row.indexOf(state.trial);
  change("trial", row[at < 0 ? 0 : Math.min(row.length - 1, Math.max(0, at + by))]);
}

function bar() {
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  byId("number").addEventListener("change", (event) => {
    const place = placeOf.get(Number(event.target.value));
    if (place === undefined) byId("said").textContent = `There is no trial ${event.target.value}.`;
    else change("trial", place);
  });
  byId("theme").addEventListener("click", () => {
    chosenTheme = theme() === "dark" ? "light" : "dark";
    repaint();
  });
  dark.addEventListener("change", () => chosenTheme === null && repaint());
  follows(["trial"], () => {
    if (state.trial === null) return;
    byId("number").value = trials.number[state.trial];
    byId("said").textContent = `Trial ${trials.number[state.trial]}: ${describe(state.trial)}`;
  });
}

function choosers() {
  ["order", "shade", "layer", "clock"].forEach((name) =>
    byId(name).addEventListener("change", (event) => change(name, name === "layer" ? Number(event.target.value) : event.target.value)));
  follows(["layer"], () => { byId("layer").value = String(state.layer); });
}

/** What comes after the first sight of the page, a figure at a time, so that the page answers between them. */
function later() {
  const layers = report.layers.length > 0;
  return [
    ...(layers ? [
      () => {
        follows(["trial", "layer", "order", "shade"], drawHeat);
        onClick(byId("heat"), (point) => { change("layer", point.y); change("trial", someOf(ordered())[point.x]); });
      },
      () => {
        follows(["trial", "layer"], drawRanks);
        onClick(byId("ranks"), (point) => change("layer", point.customdata));
      },
      () => { follows(["trial", "layer"], drawSpectra); },
    ] : []),
    drawImportance,
    () => { follows(["clock"], drawConvergence); },
  ];
}

/** On paper: light colours, and figures as wide as the page. */
function paper() {
  addEventListener("beforeprint", () => {
    onPaper = true;
    paint("light");
    redraw();
  });
  addEventListener("afterprint", () => {
    onPaper = false;
    repaint();
  });
}

function firstSight() {
  paint(theme());
  const knee = placeOf.get(report.knee);
  state.trial = knee ?? members[0] ?? (trials.number.length ? 0 : null);
  panels = report.pairs.map(panel);
  panels.forEach(({ node, pair, redraw: now }) => {
    now();
    onClick(node, (point) => Number.isInteger(point.customdata) && change("trial", point.customdata));
    followers.trial.push(() => moveRing(node, pair));
  });
  frontLegend();
  choiceLegend();
  bar();
  listFront();
  choosers();
  follows(["trial"], showTrial);
  follows(["trial"], showCommands);
  follows(["trial", "layer"], listPriors);
  paper();
}

/** Note on the page how long it took, in milliseconds since it was asked for. */
const note = (what) => { document.documentElement.dataset[what] = String(Math.round(performance.now())); };

function afterwards(tasks) {
  if (!tasks.length) return note("complete");
  setTimeout(() => {
    tasks[0]();
    afterwards(tasks.slice(1));
  });
  return undefined;
}

firstSight();
requestAnimationFrame(() => {
  note("ready");
  afterwards(later());
});
