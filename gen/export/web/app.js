// Tabs; each has a module of its name, made when it is first opened.
import { run } from "./runtime.js";

const [state, bar, main, nav] = ["#state", "#loaded", "main", "nav"].map((s) => document.querySelector(s));
const tell = (text, wrong = false) => { state.textContent = text; state.classList.toggle("error", wrong); };
addEventListener("unhandledrejection", ({ reason }) => tell(reason.message || String(reason), true));

const [site, packed] = await Promise.all([
  fetch("site.json").then((answer) => answer.json()),
  fetch("data.bin").then((answer) => answer.arrayBuffer()).then((buffer) => new Uint8Array(buffer)),
]);
const arrays = (name) => {
  const [from, shape] = site.arrays[name];
  return { shape, bytes: packed.subarray(from, from + shape.reduce((a, b) => a * b, 1)) };
};

const made = new Map();
async function open(tab) {
  for (const button of nav.children) button.ariaSelected = String(button.dataset.name === tab.name);
  history.replaceState(null, "", `#${tab.name}`);
  if (!made.has(tab.name)) {
    for (const name of tab.models) run(name); // side by side
    const module = await import(`./${tab.name}.js`); // its first picture is waited for
    made.set(tab.name, module.tab(tab.data, arrays));
  }
  const { element, first } = made.get(tab.name);
  main.replaceChildren(element);
  await first;
}

for (const tab of site.tabs) {
  const button = Object.assign(document.createElement("button"), { textContent: tab.title, type: "button" });
  button.setAttribute("role", "tab");
  button.dataset.name = tab.name;
  button.onclick = () => open(tab);
  nav.append(button);
}
tell("loading …");
await open(site.tabs.find((tab) => `#${tab.name}` === location.hash) || site.tabs[0]);
document.body.dataset.first = String(Math.round(performance.now())); // ms till the first picture
const names = site.tabs.flatMap((tab) => tab.models);
for (const [k, name] of names.entries()) {
  await run(name);
  bar.value = (k + 1) / names.length;
}
for (const tab of site.tabs) await import(`./${tab.name}.js`);
bar.remove();
document.body.dataset.ready = "true";
tell("ready, also without a network");
