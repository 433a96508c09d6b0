// Finds and recognises the faces of frames, away from the page's own thread. A message {id, frame} (RGBA) is answered by
// {id, faces, seconds} or {id, error}; the first message, {ready}, says that both networks are loaded.

import * as ort from "./ort/ort.wasm.min.mjs";
import { detect } from "./centerface.js";
import { faceSquare } from "./faces.js";
import { resize, turned } from "./resize.js";

const BATCH = 16; // faces at once

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
// More than one needs cross-origin isolation, which is for the server to grant by two headers.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

async function load(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

async function session(name) {
  return ort.InferenceSession.create(new Uint8Array(await (await load(name)).arrayBuffer()), { logSeverityLevel: 3 });
}

const started = (async () => {
  const info = await (await load("./model.json")).json();
  const [detector, network] = [await session("./detector.onnx"), await session("./model.onnx")];
  return { info, detector, network };
})();
started.then(
  ({ info }) => postMessage({ ready: true, info, threads: ort.env.wasm.numThreads }),
  (error) => postMessage({ error: String(error.message ?? error) }),
);

async function findFaces(frame, detector, info) {
  const network = async (values, width, height) => {
    const feeds = { [detector.inputNames[0]]: new ort.Tensor("float32", values, [1, 3, height, width]) };
    const maps = await detector.run(feeds);
    const [heatmap, scale, offset, landmarks] = info.detector.outputs.map((name) => maps[name].data);
    return { heatmap, scale, offset, landmarks };
  };
  const { threshold, long_sides: longSides, hint, largest_hint: largestHint } = info.detector;
  return detect(frame, network, { threshold, longSides, hint, largestHint });
}

async function recognise(images, network, size) {
  const results = [];
  for (let first = 0; first < images.length; first += BATCH) {
    const some = images.slice(first, first + BATCH);
    const values = new Uint8Array(some.length * size * size * 3);
    some.forEach((image, i) => values.set(image, i * image.length));
    const outputs = await network.run({ faces: new ort.Tensor("uint8", values, [some.length, size, size, 3]) });
    const [, crops, classes] = outputs.crop_logits.dims;
    some.forEach((_, i) => {
      const probabilities = Array.from(outputs.scores.data.slice(i * classes, (i + 1) * classes));
      const cropLogits = Array.from({ length: crops }, (_, crop) => {
        const start = (i * crops + crop) * classes;
        return Array.from(outputs.crop_logits.data.slice(start, start + classes));
      });
      results.push({ probabilities, cropLogits });
    });
  }
  return results;
}

async function process(frame) {
  const { info, detector, network } = await started;
  const begun = performance.now();
  const boxes = await findFaces(frame, detector, info);
  const found = performance.now();
  const faces = [];
  for (const box of boxes) {
    const square = faceSquare(box, info.margin, frame.width, frame.height);
    if (!square) continue;
    const upright = Math.abs(box.angle) < info.upright_degrees;
    const [picture, region] = upright ? [frame, square] : [turned(frame, square, box.angle)];
    faces.push({ box, square, image: resize(picture, info.image_size, info.image_size, region) });
  }
  const images = faces.map((face) => face.image);
  (await recognise(images, network, info.image_size)).forEach((result, i) => Object.assign(faces[i], result));
  const seconds = { detect: (found - begun) / 1000, recognize: (performance.now() - found) / 1000 };
  return { faces, seconds };
}

self.onmessage = async ({ data: { id, frame } }) => {
  try {
    postMessage({ id, ...(await process(frame)) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) });
  }
};
