// Runs the models, away from the page, which stays smooth meanwhile.
import * as ort from "./ort/ort.wasm.min.mjs";

const sessions = new Map();

// Contents of a .gz file, whether or not the host has unpacked it on the way.
async function unpacked(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: expected a file, got status ${answer.status}`);
  const packed = new Uint8Array(await answer.arrayBuffer());
  if (packed[0] !== 0x1f || packed[1] !== 0x8b) return packed.buffer;
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const ready = (async () => {
  ort.env.wasm.numThreads = 1; // more need headers that a static host does not send
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.wasmBinary = await unpacked("ort/ort-wasm-simd-threaded.wasm.gz");
})();

function session(name) {
  if (!sessions.has(name)) {
    const made = (async () => {
      const model = await unpacked(`models/${name}.onnx.gz`);
      await ready;
      return ort.InferenceSession.create(new Uint8Array(model), { graphOptimizationLevel: "all" });
    })();
    made.catch(() => sessions.delete(name)); // a later try asks the host again
    sessions.set(name, made);
  }
  return sessions.get(name);
}

async function run(name, inputs) {
  const made = await session(name), given = {};
  for (const key of made.inputNames) {
    const { type, data, dims } = inputs[key];
    given[key] = new ort.Tensor(type, data, dims);
  }
  const outputs = {};
  for (const [key, { data, dims }] of Object.entries(await made.run(given))) {
    outputs[key] = { type: "float32", data: data.slice(), dims: [...dims] };
  }
  return outputs;
}

let queue = Promise.resolve(); // one at a time: a session is not to be run twice at once
onmessage = ({ data: { id, name, inputs } }) => {
  const loaded = session(name); // files come side by side
  loaded.catch(() => {});
  queue = queue.then(async () => {
    try {
      await loaded;
      postMessage({ id, outputs: inputs ? await run(name, inputs) : {} });
    } catch (error) {
      postMessage({ id, error: String(error.message || error) });
    }
  });
};
