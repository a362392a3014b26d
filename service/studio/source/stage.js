// The stage: one head under studio light, drawn when something changed, turned by mouse, finger or key.

import {
  Box3,
  DirectionalLight,
  Group,
  HemisphereLight,
  MathUtils,
  Mesh,
  MeshBasicMaterial,
  NeutralToneMapping,
  PerspectiveCamera,
  Scene,
  Vector3,
  WebGLRenderer,
} from 'three';
import { OrbitControls } from 'three/addons/controls/OrbitControls.js';

const FIELD_OF_VIEW_DEG = 20;
const EXTENT = 1.12; // what the front view shows, in heights of the head
const MAX_PIXEL_RATIO = 2;
const TURN = MathUtils.degToRad(7.5); // of one key press
const NEARER = 0.9; // of the distance

export class Stage {
  /** onFailure is told in words what the GPU refuses: a shader that does not compile, a context that is gone. */
  constructor(canvas, onFailure) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.toneMapping = NeutralToneMapping;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, MAX_PIXEL_RATIO));
    this.renderer.debug.onShaderError = (gl, program, vertex, fragment) =>
      onFailure(complaintOf(gl, program, vertex, fragment));
    canvas.addEventListener('webglcontextlost', () =>
      onFailure('The browser took the graphics away. Load the page again.'),
    );
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.01, 100);
    this.camera.add(makeLights());
    this.scene = new Scene();
    this.scene.add(this.camera);
    this.controls = makeControls(this.camera, canvas);
    this.controls.addEventListener('change', () => this.redraw());
    canvas.addEventListener('keydown', (event) => this.turn(event));
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.wires = new MeshBasicMaterial({ color: 0x000000, wireframe: true, transparent: true, opacity: 0.22 });
    this.wires.polygonOffset = true;
    this.wires.polygonOffsetFactor = -1;
    this.renderer.setAnimationLoop(() => this.draw());
  }

  /** Show a head instead of the one before, seen from where that was seen; the first is seen from the front. */
  show(mesh) {
    const first = !this.mesh;
    if (this.mesh) this.remove();
    this.mesh = mesh;
    this.overlay = new Mesh(mesh.geometry, this.wires);
    this.overlay.morphTargetInfluences = mesh.morphTargetInfluences; // the same array: one pose
    this.overlay.visible = this.wireframe ?? false;
    for (const each of [mesh, this.overlay]) {
      each.frustumCulled = false;
      this.scene.add(each);
    }
    if (first) this.lookAtFront();
    this.redraw();
  }

  remove() {
    this.scene.remove(this.mesh, this.overlay);
    this.mesh.geometry.dispose();
    for (const material of this.mesh.material) {
      material.map?.dispose();
      material.dispose();
    }
  }

  setWireframe(on) {
    this.wireframe = on;
    if (this.overlay) this.overlay.visible = on;
    this.redraw();
  }

  /** Frame the whole head, from the front, in a view of any shape. */
  lookAtFront() {
    const box = new Box3().setFromObject(this.mesh, true); // precise: of the head at rest, not of all its targets
    const size = box.getSize(new Vector3());
    const extent = EXTENT * Math.max(size.y, size.x / this.camera.aspect);
    const distance = extent / 2 / Math.tan(MathUtils.degToRad(FIELD_OF_VIEW_DEG / 2)) + size.z / 4;
    box.getCenter(this.controls.target);
    this.camera.position.set(0, 0, distance).add(this.controls.target);
    this.camera.near = distance / 100;
    this.camera.far = distance * 100;
    this.camera.updateProjectionMatrix();
    this.controls.minDistance = distance / 8;
    this.controls.maxDistance = distance * 3;
    this.controls.update();
  }

  turn(event) {
    const act = {
      ArrowLeft: () => this.controls.rotateLeft(-TURN), // the camera goes the other way than the face
      ArrowRight: () => this.controls.rotateLeft(TURN),
      ArrowUp: () => this.controls.rotateUp(-TURN),
      ArrowDown: () => this.controls.rotateUp(TURN),
      '+': () => this.controls.dollyIn(NEARER),
      '-': () => this.controls.dollyOut(NEARER),
      0: () => this.lookAtFront(),
    }[event.key];
    if (!act || !this.mesh || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    if (!clientWidth || !clientHeight) return;
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.updateProjectionMatrix();
    this.draw(true);
  }

  redraw() {
    this.stale = true;
  }

  draw(now = false) {
    if (!this.stale && !now) return;
    this.stale = false;
    this.renderer.render(this.scene, this.camera);
  }
}

/** Lights that turn with the camera, so that every view is lit alike: key, fill and rim. */
function makeLights() {
  const lights = new Group();
  lights.add(new HemisphereLight(0xffffff, 0x9a8578, 1.5));
  for (const [color, intensity, ...position] of [
    [0xfff4e8, 1.9, -1, 1.1, 1.5],
    [0xe8f0ff, 0.6, 1.5, 0.2, 1],
    [0xffffff, 0.9, 0.8, 1, -1.5],
  ]) {
    const light = new DirectionalLight(color, intensity);
    light.position.set(...position);
    lights.add(light, light.target);
  }
  return lights;
}

function makeControls(camera, canvas) {
  const controls = new OrbitControls(camera, canvas);
  controls.enableDamping = false;
  controls.zoomSpeed = 0.7;
  return controls;
}

/** The first error of a shader's log, with the line that it is about. */
function complaintOf(gl, program, vertex, fragment) {
  const logs = [gl.getShaderInfoLog(vertex), gl.getShaderInfoLog(fragment), gl.getProgramInfoLog(program)];
  const error =
    logs
      .join('\n')
      .split('\n')
      .find((line) => line.includes('ERROR')) ?? logs.join(' ').trim();
  return `The graphics driver refuses the head’s shader: ${error.slice(0, 300)}`;
}
