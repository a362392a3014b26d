// The page: one GLB under studio light, shown at exact times. `render.mjs` drives it through `window.viewer`.

import {
  ACESFilmicToneMapping,
  AnimationMixer,
  Box3,
  Color,
  DirectionalLight,
  Group,
  HemisphereLight,
  MathUtils,
  PerspectiveCamera,
  Scene,
  Vector3,
  WebGLRenderer,
} from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';

const FIELD_OF_VIEW_DEG = 20;

// Where a view looks, in shares of the model's box from its lowest corner; how much it shows, in shares of the box's
// height; and from where, in degrees to the model's left. The mouth lies where it does on Talker's default head.
const VIEWS = {
  front: { target: [0.5, 0.5, 0.5], extent: 1.15, azimuth: 0 },
  quarter: { target: [0.5, 0.5, 0.5], extent: 1.15, azimuth: 35 },
  profile: { target: [0.5, 0.5, 0.5], extent: 1.15, azimuth: 90 },
  mouth: { target: [0.5, 0.26, 0.9], extent: 0.28, azimuth: 0 },
};

const renderer = new WebGLRenderer({ antialias: true });
renderer.toneMapping = ACESFilmicToneMapping;
document.body.append(renderer.domElement);

const scene = new Scene();
scene.background = new Color(0x8a8f96);
const camera = new PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.01, 100);
camera.add(studio());
scene.add(camera);

let model, box, mixer, action;

/** Lights that turn with the camera, so that every view is lit alike. */
function studio() {
  const lights = new Group();
  lights.add(new HemisphereLight(0xffffff, 0x8c7b70, 1.5));
  for (const [color, intensity, ...position] of [
    [0xfff4e8, 2.4, -1, 1, 1.5], // key
    [0xe8f0ff, 0.9, 1.5, 0.2, 1], // fill
    [0xffffff, 1.0, 0.8, 1, -1.5], // rim
  ]) {
    const light = new DirectionalLight(color, intensity);
    light.position.set(...position);
    lights.add(light, light.target);
  }
  return lights;
}

/** Load a GLB, animated or still; return what is known of it. */
async function load(url) {
  const gltf = await new GLTFLoader().loadAsync(url);
  model = gltf.scene;
  scene.add(model);
  box = new Box3().setFromObject(model, true); // precise: of the head at rest, not of all that its targets can do
  mixer = new AnimationMixer(model);
  const [clip] = gltf.animations;
  if (clip) {
    action = mixer.clipAction(clip).play();
    action.paused = true; // time is set, it does not pass
  }
  return {
    duration_s: clip?.duration ?? 0,
    frames: clip?.tracks[0].times.length ?? 1,
    morph_targets: influences()[0].length,
  };
}

/** Point the camera. size: edge of the square picture, in pixels. */
function look(view, size) {
  const { target, extent, azimuth } = VIEWS[view];
  const height = box.max.y - box.min.y;
  const centre = new Vector3(...target).multiply(box.getSize(new Vector3())).add(box.min);
  const distance = (extent * height) / 2 / Math.tan(MathUtils.degToRad(FIELD_OF_VIEW_DEG / 2));
  const angle = MathUtils.degToRad(azimuth);
  camera.position.set(Math.sin(angle), 0, Math.cos(angle)).multiplyScalar(distance).add(centre);
  camera.near = distance / 100;
  camera.far = distance * 100;
  camera.lookAt(centre);
  camera.updateProjectionMatrix();
  renderer.setSize(size, size);
}

/** Draw the model as it is at time_s; return the norm of the morph influences of the part that moves least. */
function show(time_s) {
  if (action) action.time = time_s;
  mixer.update(0);
  renderer.render(scene, camera);
  return { time_s, influences_norm: Math.min(...influences().map((each) => Math.hypot(...each))) };
}

/** The morph influences of each mesh: a model has one for each material. */
function influences() {
  const values = [];
  model.traverse((node) => node.isMesh && values.push(node.morphTargetInfluences ?? []));
  return values;
}

/** Replace the page by a table of pictures: {columns, pictures: [{label, url}]}. */
async function lay({ columns, pictures }) {
  const sheet = document.createElement('div');
  sheet.id = 'sheet';
  sheet.style.gridTemplateColumns = `repeat(${columns}, auto)`;
  for (const { label, url } of pictures) {
    const figure = document.createElement('figure');
    const image = new Image();
    const caption = document.createElement('figcaption');
    image.src = url;
    caption.textContent = label;
    figure.append(image, caption);
    sheet.append(figure);
    await image.decode();
  }
  document.body.replaceChildren(sheet);
}

window.viewer = { views: Object.keys(VIEWS), load, look, show, lay };
