/** The page: a picture from a file or the camera, the face in the box through the network, its answer as bars and map. */

import * as ort from './onnxruntime.js';
import {cut, overlay, similarity, toChannels, warp} from './pixels.js';
import {Stage} from './stage.js';

const LARGEST = 4096;  // Pixels of a picture's long side: phones have no larger canvas.
const PAUSE = 150;  // Milliseconds without a change after which the network is asked.

const element = id => document.getElementById(id);
const show = (id, visible) => { element(id).hidden = !visible; };
const percent = share => `${(100 * share).toFixed(1)} %`;

const about = await (await fetch('about.json')).json();
const template = about.template ?? [];
const stage = new Stage(element('stage'), template, changed);
let session, waiting, asking, face, map, stream;

/** Says what went wrong; nothing ('') takes it away. */
function trouble(words) {
  element('trouble').textContent = words;
  show('trouble', words);
}

/** Makes a picture of any kind the one on the stage. */
function open(picture, width, height) {
  const scale = Math.min(LARGEST / Math.max(width, height), 1);
  trouble('');
  show('drop', false);
  show('stage', true);
  element('whole').disabled = false;
  stage.show(picture, Math.max(Math.round(width * scale), 1), Math.max(Math.round(height * scale), 1));
}

async function read(file) {
  if (!file) return;
  stopCamera();
  let picture;
  try {
    picture = await createImageBitmap(file, {colorSpaceConversion: 'none'});  // Upright, by its EXIF data.
  } catch {
    trouble(`${file.name} cannot be read as a picture. Choose a JPEG, PNG or WebP file.`);
    return;
  }
  open(picture, picture.width, picture.height);
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    trouble('The browser gives the camera only to pages from this machine (http://127.0.0.1, http://localhost) or by https.');
    return;
  }
  stopCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'user'}, audio: false});
  } catch (error) {
    const why = {NotAllowedError: 'it was not allowed', NotFoundError: 'there is none', NotReadableError: 'another program uses it'};
    trouble(`No picture from the camera: ${why[error.name] ?? error.message}. A photo works as well.`);
    return;
  }
  trouble('');
  element('video').srcObject = stream;
  await element('video').play();
  live(true);
}

function live(on) {
  show('video', on);
  show('take', on);
  show('drop', !on && !stage.edges);
  show('stage', !on && stage.edges);
}

function stopCamera() {
  stream?.getTracks().forEach(track => track.stop());
  stream = element('video').srcObject = null;
  live(false);
}

function take() {
  const video = element('video');
  open(video, video.videoWidth, video.videoHeight);
  stopCamera();
}

/** The box or a point has changed: the network is asked when it has come to rest. */
function changed() {
  const {left, top, right, bottom} = stage.box;
  element('place').textContent = `Box: ${right - left} × ${bottom - top} pixels, from ${left}, ${top}`;
  clearTimeout(waiting);
  waiting = setTimeout(answer, PAUSE);
}

async function answer() {
  if (!session || !stage.edges) return;
  if (asking) return changed();  // One at a time.
  asking = true;
  try {
    const cutOut = stage.marked
      ? warp(stage.image, similarity(stage.points, template, about.size), about.size)
      : cut(stage.image, stage.box, about.size);
    const input = new ort.Tensor('uint8', toChannels(cutOut, about.channels), [1, about.size, about.size, about.channels]);
    const found = await session.run({images: input});
    face = cutOut;
    map = about.map && {data: found.map.data, channels: 1, height: found.map.dims[1], width: found.map.dims[2]};
    tell([...found.probabilities.data]);
  } catch (error) {
    trouble(`The network did not answer: ${error.message}`);
  } finally {
    asking = false;
  }
}

/** Shows probabilities, in the order of the classes. */
function tell(probabilities) {
  const top = probabilities.indexOf(Math.max(...probabilities)), most = probabilities[top];
  const entropy = -probabilities.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
  const unsure = about.threshold !== null && most < about.threshold;
  document.querySelectorAll('#answered tbody tr').forEach((row, i) => {
    row.classList.toggle('top', i === top && !unsure);
    row.querySelector('span').textContent = percent(probabilities[i]);
    row.querySelector('.bar i').style.width = percent(probabilities[i]).replace(' ', '');
    row.title = probabilities[i].toFixed(6);
  });
  element('verdict').textContent = unsure ? 'I do not know' : `${about.classes[top]}, ${percent(most)}`;
  element('doubt').textContent = (unsure ? `The likeliest label, ${about.classes[top]}, has ${percent(most)}, less than the `
    + `${percent(about.threshold)} that an answer needs. ` : '')
    + `Entropy ${entropy.toFixed(2)} of at most ${Math.log(probabilities.length).toFixed(2)} nats.`;
  show('status', false);
  show('answered', true);
  draw();
}

function draw() {
  if (!face) return;
  const canvas = element('seen'), size = about.size, mapped = about.map && element('mapped').checked;
  if (about.map) show('key', mapped);
  [canvas.width, canvas.height] = [size, size];
  let picture = mapped ? overlay(face, map) : face;
  if (!mapped && about.channels === 1) {
    picture = {data: Uint8ClampedArray.from([...toChannels(face, 1)].flatMap(value => [value, value, value, 255]))};
  }
  canvas.getContext('2d').putImageData(new ImageData(picture.data, size, size), 0, 0);
}

element('file').addEventListener('change', event => read(event.target.files[0]));
element('camera').addEventListener('click', startCamera);
element('take').addEventListener('click', take);
element('whole').addEventListener('click', () => stage.whole());
if (about.map) element('mapped').addEventListener('change', draw);
document.addEventListener('dragover', event => event.preventDefault());
document.addEventListener('drop', event => {
  event.preventDefault();
  read(event.dataTransfer.files[0]);
});

element('problem').remove();  // It says what is wrong where this program cannot run.
ort.env.wasm.numThreads = 1;  // More need headers of the server that a plain one does not send.
try {
  session = await ort.InferenceSession.create('model.onnx', {executionProviders: ['wasm']});
  element('status').textContent = 'Ready. Choose a photo.';
  answer();
} catch (error) {
  element('status').textContent = `The network cannot be loaded: ${error.message}`;
}
