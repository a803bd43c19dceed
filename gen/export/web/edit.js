// Edits attributes of a generated head, by sliders.
import { floats, latest, make, normal, pixels, run, show } from "./runtime.js";

export const last = {}; // inputs of the picture on show

export function tab({ attributes, known, latent, noise, psi, rows, size }) {
  const K = attributes.length;
  const canvas = make("canvas", { width: size, height: size, id: "edited" });
  const stage = make("div.stage", {}, canvas);
  let seed = 3, way = 1, ws = null, labels = null, steps = null;

  // The combination that occurs, has attribute k turned, and differs least otherwise.
  const turned = (y, k) => {
    const fits = known.filter((d) => d[k] !== y[k]);
    const far = (d) => d.reduce((sum, v, i) => sum + (v !== y[i]), 0);
    return fits.length ? fits.reduce((a, b) => (far(b) < far(a) ? b : a)) : y.map((v, i) => (i === k ? 1 - v : v));
  };
  const begin = async () => {
    last.z = normal(seed, latent);
    ws = (await run("editor_mapping", { z: floats(last.z, 1, latent), psi: floats(Array(rows).fill(psi), rows) })).ws;
    const { image } = await run("editor_synthesis", { ws });
    image.data = image.data.map((v) => Math.min(1, Math.max(-1, v)));
    const { logits } = await run("judge_classify", { x: image });
    labels = Array.from(logits.data, (v) => Number(v > 0));
    sliders.forEach((slider, k) => { slider.value = labels[k]; });
    await vary();
  };
  const vary = async () => {
    const many = new Float32Array(K * ws.data.length);
    for (let k = 0; k < K; k++) many.set(ws.data, k * ws.data.length);
    last.d = labels.map((_, k) => turned(labels, k));
    last.noise = normal(1000 + way, noise);
    const z = floats(Array(K).fill([...last.noise]).flat(), K, noise);
    const { edited } = await run("editor_edit", {
      ws: { type: "float32", data: many, dims: [K, ...ws.dims.slice(1)] }, d: floats(last.d.flat(), K, K), z,
    });
    steps = Array.from({ length: K }, (_, k) =>
      edited.data.slice(k * ws.data.length, (k + 1) * ws.data.length).map((v, i) => v - ws.data[i]));
  };
  const draw = async () => {
    const shares = sliders.map((slider, k) => Math.abs(Number(slider.value) - labels[k]));
    const code = ws.data.map((v, i) => steps.reduce((sum, step, k) => sum + shares[k] * step[i], v));
    const { image } = await run("editor_synthesis", { ws: { ...ws, data: code } });
    show(canvas, pixels(image));
    Object.assign(last, { shares, labels });
  };
  const ask = latest(async (what) => { if (what) await what(); await draw(); }, stage);
  const sliders = attributes.map((name) => {
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, id: `has-${name}`, ariaLabel: name.replace("_", " ") });
    slider.oninput = () => ask();
    return slider;
  });
  const button = (text, act) => make("button.plain", { type: "button", onclick: act }, text);
  const reset = () => { sliders.forEach((slider, k) => { slider.value = labels[k]; }); ask(); };
  const element = make("section.card", {},
    make("p.about", {}, "A drawn head that no one drew: each slider moves its code along one edit. Cat, dog and bear give way to each other."),
    stage,
    make("div.controls", {},
      make("div.sliders", {}, ...attributes.flatMap((name, k) => [make("label", { htmlFor: `has-${name}` }, name.replace("_", " ")), sliders[k]])),
      make("div.row", {},
        button("another head", () => { seed += 1; ask(begin); }),
        button("another way", () => { way += 1; ask(vary); }),
        button("as it was", reset))));
  return { element, first: ask(begin) };
}
