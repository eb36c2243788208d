// The selected trial: its numbers, its choices, and what to type.

function showTrial() {
  const place = state.trial;
  if (place === null) {
    byId("trial").replaceChildren(element("p", {}, "No trial is selected."));
    return;
  }
  const by = trials.dominated_by[place];
  const facts = [
    `Trial ${trials.number[place]}`,
    trials.label[place] && `point: ${trials.label[place]}`,
    trials.member[place] ? "on the front" : trials.state[place],
    by !== null && `dominated by trial ${by}`,
    `${short(trials.budget[place])} epochs`,
    ...Object.entries(trials.penalties).filter(([, column]) => column[place]).map(([name, column]) => `${name} ${short(column[place])}`),
    trials.reason[trials.number[place]],
  ].filter(Boolean);
  byId("trial").replaceChildren(
    element("p", {}, `${facts.join("; ")}.`),
    element("div", { class: "panels" }, measurementTable(place), choiceTable(place)),
  );
}

function table(label, numeric, head, rows) {
  const cell = (text, k) => (k ? element("td", numeric ? {} : { class: "words" }, text) : element("th", { scope: "row", class: "words" }, text));
  const made = element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((name, k) => element("th", { scope: "col", ...(k && numeric ? {} : { class: "words" }) }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, made);
}

function measurementTable(place) {
  const rows = Object.keys(trials.measurements).filter((name) => measured(name, place) !== null).map((name) => {
    const value = measured(name, place);
    const dense = report.study.dense[name];
    const ratio = dense !== undefined && value ? `${short(dense / value)}×` : "–";
    return [name, withBar(name, place), short(dense), ratio];
  });
  return table("Measurements of the selected trial", true, ["measurement", "value", "dense", "dense / value"], rows);
}

/** What a layer costs as it is and as it was chosen: `MACs 36.9k → 12.1k (3.05×)`; nothing where the store lacks it. */
function costs(layer, choice) {
  const after = choice === null || choice.factorization === "dense" ? layer.cost : choice.cost;
  if (!layer.cost || !after) return null;
  return ["params", "macs"].map((name) => {
    const ratio = after[name] && after[name] !== layer.cost[name] ? ` (${short(layer.cost[name] / after[name])}×)` : "";
    return `${short(layer.cost[name])} → ${short(after[name])}${ratio}`;
  });
}

function choiceTable(place) {
  const known = report.layers.some((layer) => layer.cost);
  const rows = report.layers.map((layer) => {
    const choice = choiceOf(layer, place);
    const words = [layer.name, choice === null ? "–" : choice.factorization, choice === null ? "–" : compared(layer, choice).join(", ") || "–"];
    return known ? [...words, ...(costs(layer, choice) ?? ["–", "–"])] : words;
  });
  const head = ["layer", "factorization", "ranks", ...(known ? ["params, dense → here", "MACs, dense → here"] : [])];
  return table("Choices of the selected trial", false, head, rows);
}

const commandOf = (command) => command.parts.join(String(trials.number[state.trial]));

function showCommands() {
  if (state.trial === null) return;
  byId("commands").replaceChildren(...report.commands.map((command) => {
    const code = element("code", {}, commandOf(command));
    const button = element("button", { type: "button", "aria-label": `Copy the command that ${command.does}` }, "Copy");
    button.addEventListener("click", () => copy(code, button));
    return element("div", { class: "command" }, element("span", { class: "does" }, command.does), code, button);
  }));
}

/** To the clipboard; where the browser does not allow it, the text is selected for the reader to copy. */
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) {
      button.textContent = "Press Ctrl-C";
      return;
    }
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

/** The table of the front: its radio buttons select, its rows follow the order asked for. */
function listFront() {
  const body = byId("front").tBodies[0];
  const rows = new Map([...body.querySelectorAll("tr[data-place]")].map((row) => [Number(row.dataset.place), row]));
  follows(["order"], () => body.append(...ordered().map((place) => rows.get(place))));
  follows(["trial"], () => rows.forEach((row, place) => {
    const selected = place === state.trial;
    row.querySelector("input").checked = selected;
    if (selected) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }));
  body.addEventListener("change", (event) => change("trial", Number(event.target.value)));
}
