// The page: a photo or the camera's frames go to the worker, and what it finds is drawn. Names of classes and files are
// put in as text, never as HTML.

import { argmax, cropRegions, softmax } from "./faces.js";

const element = (id) => document.getElementById(id);
const [picture, boxes, faceList, stage, video] = ["picture", "boxes", "faces", "stage", "video"].map(element);
const pen = picture.getContext("2d", { willReadFrequently: true });

let info = null;
let camera = null; // the stream while it runs
let starting = false; // it is being asked for
let source = 0; // counts photos and starts of the camera: what was begun for an earlier one is dropped
let chosen = 0; // the face whose crops are shown
let lastId = 0;
const waiting = new Map();

/** What was found in the last picture, for scripts: {width, height, faces: [{box, square, probabilities, cropLogits}]}. */
window.results = null;

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.ready) {
    info = data.info;
    describeNetwork(data.threads);
    say("Ready.");
    document.documentElement.dataset.state = "ready";
  } else if (data.id === undefined) {
    fail(data.error);
  } else {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data);
  }
};
worker.onerror = (event) => fail(event.message);

function say(text) {
  element("status").textContent = text;
}

function fail(text) {
  say(`It failed: ${text}`);
  document.documentElement.dataset.state = "failed";
}

function describeNetwork(threads) {
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const parts = { val: "validation", test: "test" };
  const accuracy = Object.entries(info.accuracy)
    .filter(([part]) => part in parts)
    .map(([part, share]) => `${parts[part]} accuracy ${percent(share)}`);
  const trained = `trained on ${info.dataset}${info.synthetic ? " (drawn faces: it knows nothing of people)" : ""}`;
  const network = `${info.name}: split ${info.split}, ${info.vote} vote, ${trained}`;
  const threadsText = `${threads} thread${threads > 1 ? "s" : ""}`;
  element("network").textContent = [network, ...accuracy, threadsText].join("; ");
}

function recognise(frame) {
  return new Promise((resolve, reject) => {
    const id = (lastId += 1);
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, frame: { width: frame.width, height: frame.height, data: frame.data } });
  });
}

// Pictures --------------------------------------------------------------------------------------------------------

async function showPhoto(file) {
  stopCamera();
  const mine = (source += 1);
  clear();
  document.documentElement.dataset.state = "working";
  say(`Looking at ${file.name} …`);
  let bitmap;
  try {
    // The pixels as they are stored, turned upright: as Python reads them.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    if (mine === source) fail(`${file.name} cannot be read as a picture.`);
    return;
  }
  if (mine !== source) return;
  const frame = draw(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  await look(frame).catch((error) => mine === source && fail(error.message));
}

/** Takes away the last picture and what was found in it. */
function clear() {
  picture.hidden = true;
  element("drop").hidden = false;
  window.results = null;
  show([], picture);
}

function draw(source, width, height) {
  if (picture.width !== width || picture.height !== height) {
    picture.width = width;
    picture.height = height;
  }
  pen.fillStyle = "white"; // behind transparent pixels, as in Python
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
  picture.hidden = false;
  element("drop").hidden = true;
  return pen.getImageData(0, 0, width, height);
}

async function look(frame) {
  const [begun, mine] = [performance.now(), source];
  const { faces, seconds } = await recognise(frame);
  if (mine !== source) return; // another picture is shown by now
  const total = (performance.now() - begun) / 1000;
  window.results = { width: frame.width, height: frame.height, faces, seconds };
  show(faces, frame);
  const count = faces.length === 0 ? "No face" : `${faces.length} face${faces.length > 1 ? "s" : ""}`;
  const times = `detection ${seconds.detect.toFixed(2)} s, recognition ${seconds.recognize.toFixed(2)} s`;
  say(camera ? `${count}; ${(1 / total).toFixed(1)} frames a second (${times})` : `${count} found (${times}).`);
  document.documentElement.dataset.state = "done";
}

// The camera ------------------------------------------------------------------------------------------------------

async function startCamera() {
  const mine = (source += 1);
  starting = true;
  element("camera").textContent = "Stop the camera"; // a second click stops what is being asked for
  say("Asking for the camera …");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
  } catch (error) {
    if (mine !== source || !starting) return;
    stopCamera();
    fail(`no camera (${error.name}). It needs a permission, and a page from this device or over https.`);
    return;
  }
  if (mine !== source || !starting) {
    stream.getTracks().forEach((track) => track.stop());
    return;
  }
  [camera, starting] = [stream, false];
  video.srcObject = camera;
  await video.play().catch(() => undefined); // stopped meanwhile
  while (mine === source && camera === stream) {
    // The boxes belong to the frame that is shown with them.
    const frame = draw(video, video.videoWidth, video.videoHeight);
    try {
      await look(frame);
    } catch (error) {
      if (mine !== source) return;
      stopCamera();
      fail(error.message);
    }
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  starting = false;
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  video.srcObject = null;
  element("camera").textContent = "Use the camera";
}

// What was found --------------------------------------------------------------------------------------------------

function show(faces, frame) {
  chosen = Math.min(chosen, Math.max(faces.length - 1, 0));
  boxes.replaceChildren(...faces.map((face, i) => boxOf(face, i, frame)));
  faceList.replaceChildren(...faces.map(cardOf));
  choose(chosen);
}

function choose(number) {
  chosen = number;
  for (const list of [boxes, faceList]) {
    [...list.children].forEach((child, i) => child.classList.toggle("chosen", i === number));
  }
}

function made(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function percent(share) {
  return `${(100 * share).toFixed(0)} %`;
}

function boxOf(face, number, frame) {
  const best = argmax(face.probabilities);
  const node = made("button", "box");
  node.type = "button";
  const { left, top, width, height } = face.box;
  node.style.left = `${(100 * left) / frame.width}%`;
  node.style.top = `${(100 * top) / frame.height}%`;
  node.style.width = `${(100 * width) / frame.width}%`;
  node.style.height = `${(100 * height) / frame.height}%`;
  node.classList.toggle("below", top < 0.06 * frame.height);
  node.append(made("span", "", `${info.class_names[best]} ${percent(face.probabilities[best])}`));
  listen(node, number);
  return node;
}

/** Pointing at a face, tapping it or reaching it by the keyboard shows its crops. */
function listen(node, number) {
  for (const event of ["pointerenter", "focus", "click"]) node.addEventListener(event, () => choose(number));
}

function cardOf(face, number) {
  const best = argmax(face.probabilities);
  const crops = face.cropLogits.map((logits) => argmax(logits));
  const agreeing = crops.filter((crop) => crop === best).length;
  const node = made("article", "face");
  node.tabIndex = 0;
  const title = made("h2");
  const text = made("span", "", info.class_names[best]);
  // Where the adaptive vote computes no crops, the whole map's logits stand in their place.
  const first = face.cropLogits[0];
  const whole = crops.length === 1 || face.cropLogits.every((row) => row.every((logit, k) => logit === first[k]));
  const votes = whole ? "no crops" : `${agreeing} of ${crops.length} crops agree`;
  text.append(made("small", "", `face ${number + 1}, score ${face.box.score.toFixed(2)}; ${votes}`));
  title.append(thumbnail(face), text);
  node.append(title, barsOf(face.probabilities, best));
  if (!whole) node.append(cropsOf(face, best));
  listen(node, number);
  return node;
}

function barsOf(probabilities, best) {
  const list = made("dl", "bars");
  probabilities.forEach((share, i) => {
    const track = made("dd", i === best ? "first" : "");
    const rail = made("div", "track");
    const fill = made("div", "fill");
    fill.style.width = `${100 * share}%`;
    rail.append(fill);
    track.append(rail);
    list.append(made("dt", "", info.class_names[i]), track, made("dd", "number", percent(share)));
  });
  return list;
}

/** The face as the network sees it. */
function thumbnail(face) {
  const size = info.image_size;
  const canvas = made("canvas");
  canvas.width = canvas.height = size;
  const pixels = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    pixels.data.set(face.image.subarray(3 * i, 3 * i + 3), 4 * i);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** The ten crops as regions of the face, each with its own decision. */
function cropsOf(face, best) {
  const whole = thumbnail(face);
  const list = made("ol", "crops");
  cropRegions(info.image_size).forEach(({ top, left, side, mirrored }, i) => {
    const canvas = made("canvas");
    canvas.width = canvas.height = side;
    const crop = canvas.getContext("2d");
    if (mirrored) crop.setTransform(-1, 0, 0, 1, side, 0);
    const from = mirrored ? info.image_size - left - side : left;
    crop.drawImage(whole, from, top, side, side, 0, 0, side, side);
    const logits = face.cropLogits[i];
    const decision = argmax(logits);
    const item = made("li", decision === best ? "agrees" : "");
    item.append(canvas, `${info.class_names[decision]} ${percent(softmax(logits)[decision])}`);
    list.append(item);
  });
  return list;
}

// Controls --------------------------------------------------------------------------------------------------------

element("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) showPhoto(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
element("camera").addEventListener("click", () => {
  if (camera || starting) {
    stopCamera();
    say("Camera stopped.");
  } else {
    startCamera();
  }
});
stage.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) showPhoto(file);
});
