// Translates a picture, and walks from one style to another.
import { drawings } from "./drawings.js";
import { floats, latest, make, normal, picks, pixels, run, show, square, unpack, values, whole } from "./runtime.js";

export const last = {}; // inputs and output of the picture on show
const EMOJI = ["😀", "😎", "🐼", "🦊", "🍓", "🎃"];
const FRAMES = 7;

export function tab({ domains, size, latent }, arrays) {
  const canvas = make("canvas", { width: size, height: size, id: "translated" });
  const stage = make("div.stage", {}, canvas);
  const slider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 1, id: "walk", ariaLabel: "from one style to the other" });
  const strip = make("div.strip");
  const ends = [{ domain: 0, seed: 1 }, { domain: Math.floor(domains.length / 2), seed: 2 }];
  let content = null, styles = null, source = null;

  const encode = async () => { content = await run("translator_encode", { x: source }); };
  const restyle = async () => {
    const z = ends.flatMap(({ seed }) => [...normal(seed, latent)]);
    last.z = z;
    last.y = ends.map((end) => end.domain);
    const got = await run("translator_map_style", { z: floats(z, 2, latent), y: whole(last.y, 2) });
    const width = got.style.dims[1];
    styles = [got.style.data.slice(0, width), got.style.data.slice(width)];
  };
  const decode = async (shares) => {
    const [a, b] = styles, N = shares.length, inputs = {};
    inputs.style = floats(shares.flatMap((t) => Array.from(a, (v, i) => (1 - t) * v + t * b[i])), N, a.length);
    for (const [name, { data, dims }] of Object.entries(content)) {
      const many = new Float32Array(N * data.length);
      for (let k = 0; k < N; k++) many.set(data, k * data.length);
      inputs[name] = { type: "float32", data: many, dims: [N, ...dims.slice(1)] };
    }
    return (await run("translator_decode", inputs)).image;
  };
  const draw = latest(async () => {
    const t = Number(slider.value), image = await decode([t]);
    show(canvas, pixels(image));
    Object.assign(last, { t, source: source.data });
  }, stage);
  const all = latest(async (what, drawn = () => {}) => {
    await what();
    await draw();
    drawn(); // the strip takes longer
    const shares = Array.from({ length: FRAMES }, (_, k) => k / (FRAMES - 1));
    const images = await decode(shares);
    strip.replaceChildren(...shares.map((_, k) => show(make("canvas"), pixels(images, k))));
  }, stage);
  const use = (image, drawn) => {
    source = values(image);
    return all(async () => { await encode(); if (!styles) await restyle(); }, drawn);
  };

  const { shape: [N, H, W], bytes } = arrays("heads");
  const heads = Array.from({ length: N }, (_, k) => unpack(bytes.subarray(3 * H * W * k, 3 * H * W * (k + 1)), W, H));
  const sources = [...drawings(size), ...heads];
  const { box, add } = picks(sources, (image) => use(image));
  for (const one of EMOJI.filter(drawable)) add(one, `emoji ${one}`, () => use(emoji(one, size)));
  const file = make("input", { type: "file", accept: "image/*", id: "own" });
  file.onchange = async () => {
    if (!file.files[0]) return;
    let picture;
    try {
      picture = await createImageBitmap(file.files[0]);
    } catch {
      throw new Error(`${file.files[0].name}: expected a picture that this browser can read`);
    }
    for (const other of box.children) other.ariaPressed = "false";
    await use(square(picture, size));
    file.value = "";
  };
  slider.oninput = () => draw();
  const side = (end, name) => {
    const select = make("select", { ariaLabel: `style ${name}` }, ...domains.map((d, k) => make("option", { value: k }, d)));
    select.value = end.domain;
    select.onchange = () => { end.domain = Number(select.value); all(restyle); };
    const dice = make("button.plain", { type: "button", title: `another style ${name}`, ariaLabel: `another style ${name}` }, "⚄");
    dice.onclick = () => { end.seed += 2; all(restyle); };
    return make("div.row", {}, select, dice);
  };
  const element = make("section.card", {},
    make("p.about", {}, "A picture takes the style of an emoji font, and walks smoothly from one style to another: drag the slider. The model has seen emoji alone, so heads and photos become what they can."),
    stage,
    make("div.controls", {},
      make("div", {}, make("span.label", {}, "Picture"), box),
      make("div.row", {}, make("label.plain", {}, "your own picture …", file)),
      make("div", {}, strip, slider, make("div.ends", {}, side(ends[0], "from"), side(ends[1], "to")))));
  box.children[0].ariaPressed = "true";
  return { element, first: new Promise((done, failed) => { use(sources[0], done).catch(failed); }) };
}

// Pixels of an emoji, by a font of the visitor's own.
function emoji(text, size) {
  const canvas = make("canvas", { width: size, height: size });
  const context = canvas.getContext("2d");
  context.font = `${Math.round(size * 0.78)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  const { actualBoundingBoxAscent: up, actualBoundingBoxDescent: down } = context.measureText(text);
  context.fillText(text, size / 2, size / 2 + (up - down) / 2);
  return context.getImageData(0, 0, size, size);
}

// True if there is a font with colours for it.
function drawable(text) {
  const { data } = emoji(text, 32);
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200 && Math.max(data[i], data[i + 1], data[i + 2]) > Math.min(data[i], data[i + 1], data[i + 2]) + 40) return true;
  }
  return false;
}
