// The viewer of a result page: NiiVue panes of one case that show the same place.
//
// The page holds, beside this module:
//   #viewer-spec    JSON, made by util/pages/viewer_page.py: views, their volumes, window presets
//   #niivue         NiiVue's module, gzip in base64
//   #volume-N       NIfTI volumes, gzip in base64
// `window.viewer` is what the tests look at; `document.documentElement.dataset.viewer` says
// "loading", "ready" or "failed".

const spec = JSON.parse(document.getElementById("viewer-spec").textContent);
const root = document.getElementById("viewer");
const status = (word) => { document.documentElement.dataset.viewer = word; };
const PLANES = { sagittal: 0, coronal: 1, axial: 2 };
const AXIS = PLANES[spec.plane]; // that the slices lie across
const WHOLE = [0, 0, 0, 1]; // pan in mm and zoom of the whole slice

function packedBytes(id) {
  const text = atob(document.getElementById(id).textContent.trim());
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

async function importNiivue() {
  const packed = new Blob([packedBytes("niivue")]).stream();
  const unpacked = packed.pipeThrough(new DecompressionStream("gzip"));
  const source = await new Response(unpacked).blob();
  return import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

class Viewer {
  constructor(niivue) {
    this.niivue = niivue;
    this.images = new Map(); // id of a volume -> NVImage, shared by the panes
    this.panes = [];
    this.opacity = new Map(spec.overlays.map((overlay) => [overlay.name, 0]));
    this.window = spec.windows[0];
    this.slice = 0;
    this.busy = Promise.resolve(); // one change after the other
  }

  async start() {
    this.buildControls();
    this.controls.inert = this.area.inert = true; // there is nothing to turn or zoom yet
    const opened = this.open();
    this.busy = opened.catch(() => {}); // what is asked for meanwhile comes after it
    await opened;
    this.controls.inert = this.area.inert = false;
  }

  async open() {
    for (let number = 0; number < spec.panes; number += 1) await this.addPane();
    for (const pane of this.panes) {
      pane.nv.broadcastTo(this.panes.map((other) => other.nv), { "2d": true, crosshair: true });
    }
    await this.showView(0);
  }

  get view() { return spec.views[this.viewIndex]; }

  // ---------------------------------------------------------------- controls

  buildControls() {
    this.controls = element("div", { className: "controls" });
    this.viewChoice = this.choice(spec.views.map((view) => view.name),
      (index) => this.queue(() => this.showView(index)));
    this.viewChoice.id = "view";
    if (spec.views.length > 1) this.controls.append(element("label", {}, "part", this.viewChoice));
    this.slider = element("input", { type: "range", min: 0, step: 1, id: "slice" });
    this.sliceName = element("output", { id: "slice-name" });
    this.slider.addEventListener("input", () => this.goToSlice(Number(this.slider.value)));
    this.controls.append(
      element("label", { className: "slices", title: "of the result, as in its tables" },
        "slice (from 0)", this.slider, this.sliceName));
    this.presets = this.choice(spec.windows.map((one) => one.name),
      (index) => this.setWindow(spec.windows[index]));
    this.presets.id = "window";
    this.low = this.number("low", this.window.low);
    this.high = this.number("high", this.window.high);
    this.controls.append(element("label", {}, `window, ${spec.unit}`, this.presets, this.low, "to",
      this.high));
    for (const overlay of spec.overlays) this.controls.append(this.overlayControl(overlay));
    this.controls.append(this.layoutControl(), this.zoomControl());
    this.swipe = element("input", { type: "range", min: 0, max: 100, value: 50, id: "swipe",
      className: "swipe", hidden: true });
    this.swipe.addEventListener("input", () => this.setSwipe());
    this.area = element("div", { className: "panes" });
    this.cursor = element("output", { className: "cursor", id: "cursor" });
    this.about = element("p", { id: "about" });
    root.append(this.controls, this.swipe, this.area, this.cursor, this.about);
  }

  choice(names, act) {
    const made = element("select", {}, ...names.map((name) => element("option", {}, name)));
    made.addEventListener("change", () => act(made.selectedIndex));
    return made;
  }

  number(id, value) {
    const made = element("input", { type: "number", id, value, step: 10 });
    made.addEventListener("change", () => this.setWindow(
      { low: this.low.valueAsNumber, high: this.high.valueAsNumber }));
    return made;
  }

  overlayControl(overlay) {
    const made = element("input", { type: "checkbox" });
    made.dataset.overlay = overlay.name;
    made.addEventListener("change", () => this.queue(async () => {
      this.opacity.set(overlay.name, made.checked ? overlay.opacity : 0);
      for (const pane of this.panes) await this.fill(pane);
    }));
    return element("label", { title: overlay.what }, made, overlay.name);
  }

  layoutControl() {
    const made = element("input", { type: "checkbox", id: "swipe-on" });
    made.addEventListener("change", () => this.queue(async () => {
      this.area.classList.toggle("swipe", made.checked);
      this.swipe.hidden = !made.checked;
      this.setSwipe();
      for (const pane of this.panes) pane.nv.resizeListener();
      if (made.checked) await this.showIn(spec.swipe);
    }));
    return element("label", { title: "lay the second picture over the first" }, made, "swipe");
  }

  zoomControl() {
    const button = (text, title, act) => {
      const made = element("button", { type: "button", title }, text);
      made.addEventListener("click", act);
      return made;
    };
    const zoomBy = (factor) => {
      const [x, y, z, zoom] = this.panes[0].nv.scene.pan2Dxyzmm;
      this.place([x, y, z, Math.max(0.5, zoom * factor)]);
    };
    return element("span", {},
      button("+", "zoom in (also Ctrl and wheel)", () => zoomBy(1.5)),
      button("\u2212", "zoom out", () => zoomBy(1 / 1.5)),
      button("whole", "the whole slice", () => this.place(WHOLE)));
  }

  // ------------------------------------------------------------------- panes

  async addPane() {
    const { Niivue, SLICE_TYPE, DRAG_MODE } = this.niivue;
    const number = this.panes.length;
    const canvas = element("canvas");
    const choice = this.choice([], () => this.queue(() => this.fill(pane)));
    const holder = element("div", { className: "pane" }, canvas, choice);
    this.area.append(holder);
    const nv = new Niivue({
      sliceType: SLICE_TYPE[spec.plane.toUpperCase()],
      dragMode: DRAG_MODE.pan, // right button; the left one moves the crosshair
      isRadiologicalConvention: true,
      isNearestInterpolation: true, // pixels as they are
      isResizeCanvas: true,
      isColorbar: false,
      isSliceMM: false,
      crosshairWidth: 0.15,
      crosshairWidthUnit: "percent",
      crosshairColor: [0.95, 0.8, 0.2, 0.9],
      backColor: [0, 0, 0, 1],
      loadingText: "",
      logLevel: "warn",
      dragAndDropEnabled: false,
    });
    await nv.attachToCanvas(canvas);
    const pane = { nv, canvas, choice, holder, number, shown: "", name: "" };
    nv.onLocationChange = () => this.moved(pane);
    // A double click or a long touch gives one pane a window of NiiVue's: back to that of all.
    nv.onIntensityChange = () => this.setWindow(this.window);
    canvas.addEventListener("mousemove", (event) => this.hover(pane, event));
    // Before NiiVue's own listener: the wheel turns slices in all panes, with Ctrl it zooms.
    holder.addEventListener("wheel", (event) => this.wheel(event),
      { capture: true, passive: false });
    // NiiVue's keys turn a single pane to other planes and slices.
    for (const kind of ["keydown", "keyup"]) {
      holder.addEventListener(kind, (event) => event.stopPropagation(), { capture: true });
    }
    this.panes.push(pane);
  }

  wheel(event) {
    event.preventDefault();
    event.stopPropagation();
    const step = Math.sign(event.deltaY);
    if (event.ctrlKey) {
      const [x, y, z, zoom] = this.panes[0].nv.scene.pan2Dxyzmm;
      this.place([x, y, z, Math.max(0.5, zoom * 1.2 ** -step)]);
    } else {
      this.goToSlice(this.slice + step);
    }
  }

  queue(change) {
    this.busy = this.busy.then(change).catch(fail);
    return this.busy;
  }

  async showView(index) {
    this.viewIndex = index;
    this.slice = this.view.start; // before anything turns to it: views have other numbers of slices
    this.images.clear();
    const names = this.view.volumes.map((volume) => volume.name);
    for (const pane of this.panes) {
      const before = pane.choice.value;
      pane.choice.replaceChildren(...names.map((name) => element("option", {}, name)));
      pane.choice.value = names.includes(before) ? before : spec.first[pane.number];
      await this.fill(pane);
    }
    this.slider.max = this.view.slices.length - 1;
    this.about.textContent = this.view.what;
    this.place(WHOLE);
    this.goToSlice(this.view.start);
  }

  // Load what the pane's choice names, and the overlays that are switched on.
  async fill(pane) {
    const { nv } = pane;
    const wanted = [this.view.volumes.find((volume) => volume.name === pane.choice.value)];
    for (const overlay of this.view.overlays) {
      if (this.opacity.get(overlay.name) > 0) wanted.push(overlay);
    }
    const key = wanted.map((volume) => volume.id).join(" ");
    if (pane.shown === key) return;
    const images = [];
    try { // all of them first: a pane is never empty while it may be turned or moved
      for (const volume of wanted) images.push(await this.image(volume));
    } catch (error) {
      pane.choice.value = pane.name; // which it still shows
      throw error;
    }
    const place = [...nv.scene.pan2Dxyzmm];
    const cross = nv.volumes.length ? this.crosshair(pane) : null;
    while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
    for (const [number, image] of images.entries()) {
      if (number === 0) [image.cal_min, image.cal_max] = [this.window.low, this.window.high];
      else image.opacity = this.opacity.get(wanted[number].name);
      nv.addVolume(image);
    }
    [pane.shown, pane.name] = [key, wanted[0].name];
    nv.setPan2Dxyzmm(place);
    if (cross) this.crossAt(pane, cross);
    this.turnTo(pane, this.slice);
    if (this.mm) this.tell(this.mm);
  }

  // Show the volumes of these names, one a pane.
  async showIn(names) {
    for (const pane of this.panes.slice(0, names.length)) {
      pane.choice.value = names[pane.number];
      await this.fill(pane);
    }
  }

  async image(volume) {
    if (!this.images.has(volume.id)) {
      const file = new File([packedBytes(volume.id)], `${volume.id}.nii.gz`);
      const image = await this.niivue.NVImage.loadFromFile({
        file, name: file.name, colormap: volume.colormap, opacity: 1,
        cal_min: volume.low, cal_max: volume.high,
      });
      image.colorbarVisible = false;
      this.images.set(volume.id, image);
    }
    return this.images.get(volume.id);
  }

  // ------------------------------------------------------- place and windows

  setWindow({ low, high }) {
    if (low < high) this.window = { low, high }; // not so where a number is none
    [this.low.value, this.high.value] = [this.window.low, this.window.high];
    this.presets.selectedIndex = spec.windows.findIndex(
      (one) => one.low === this.window.low && one.high === this.window.high);
    return this.queue(() => { // a pane may be loading
      for (const { nv } of this.panes) {
        [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = [this.window.low, this.window.high];
        nv.updateGLVolume();
      }
    });
  }

  place(panAndZoom) {
    for (const { nv } of this.panes) nv.setPan2Dxyzmm([...panAndZoom]);
  }

  turnTo(pane, slice) {
    const { nv } = pane;
    nv.scene.crosshairPos[AXIS] = nv.mm2frac(this.view.slices[slice].centre, 0, true)[AXIS];
    nv.drawScene();
  }

  // Move a pane's crosshair within its slice, unless its volume does not reach there.
  crossAt(pane, mm) {
    const { scene } = pane.nv;
    const frac = pane.nv.mm2frac(mm, 0, true);
    frac[AXIS] = scene.crosshairPos[AXIS];
    if (frac.every((share) => share >= 0 && share <= 1)) scene.crosshairPos = frac;
  }

  goToSlice(wanted) {
    const last = this.view.slices.length - 1;
    this.slice = Math.min(last, Math.max(0, wanted));
    for (const pane of this.panes) this.turnTo(pane, this.slice);
    this.slider.value = this.slice;
    this.sliceName.textContent =
      `${this.view.slices[this.slice].number} (0 to ${spec.slices - 1})`;
    this.tell(this.crosshair(this.panes[0]));
  }

  setSwipe() { this.area.style.setProperty("--swipe", `${this.swipe.value}%`); }

  // The crosshair was moved in a pane; the others follow through NiiVue's own broadcast.
  moved(pane) { this.tell(this.crosshair(pane)); }

  crosshair(pane) { return this.millimetres(pane, pane.nv.scene.crosshairPos); }

  // Of the scanner, also where the volume lies obliquely: NiiVue's own choice is the straightened
  // place of its picture.
  millimetres(pane, frac) { return [...pane.nv.frac2mm(frac, 0, true)].slice(0, 3); }

  hover(pane, event) {
    const { nv } = pane;
    if (!nv.volumes.length) return;
    const box = pane.canvas.getBoundingClientRect();
    const ratio = pane.canvas.width / box.width;
    const frac = nv.canvasPos2frac(
      [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio]);
    if (frac[0] >= 0) this.tell(this.millimetres(pane, frac));
  }

  // Values of every volume that has been opened, at a place in millimetres.
  valuesAt(mm) {
    const values = [];
    for (const volume of [...this.view.volumes, ...this.view.overlays]) {
      const image = this.images.get(volume.id);
      if (!image) continue;
      const voxel = [...image.mm2vox(mm)].map(Math.round);
      const inside = voxel.every((at, axis) => at >= 0 && at < image.dimsRAS[axis + 1]);
      values.push([volume, inside ? image.getValue(...voxel) : NaN]);
    }
    return values;
  }

  tell(mm) {
    this.mm = mm;
    const digits = 7; // of float32; micro-CT may have values of some thousandths
    const words = this.valuesAt(mm).map(([volume, value]) => Number.isNaN(value)
      ? `${volume.name} outside`
      : `${volume.name} ${+value.toPrecision(digits)} ${volume.unit}`.trim());
    this.cursor.textContent =
      `x ${mm[0].toFixed(2)}  y ${mm[1].toFixed(2)}  z ${mm[2].toFixed(2)} mm (RAS)\n`
      + words.join("   ");
  }
}

function fail(error) {
  status("failed");
  console.error(error);
  const message = root.querySelector(".message") // one, however much fails
    ?? root.appendChild(element("p", { className: "message" }));
  message.textContent = `The viewer failed (${error.message ?? error}). It needs a browser with `
    + "WebGL2 and some memory; the pictures and tables of this page do not.";
}

status("loading");
try {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("no WebGL2");
  window.viewer = new Viewer(await importNiivue());
  await window.viewer.start();
  status("ready");
} catch (error) {
  fail(error);
}
