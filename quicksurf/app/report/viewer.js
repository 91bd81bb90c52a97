"use strict";
(function () {
  const holder = document.getElementById("viewer");
  const canvas = holder.querySelector("canvas");
  const gl = canvas.getContext("webgl", { antialias: true, alpha: true });
  if (!gl) return;  // the picture of the mesh stays

  const text = atob(document.getElementById("mesh").textContent.trim());
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const head = new DataView(bytes.buffer);
  const nVertices = head.getUint32(0, true), nFaces = head.getUint32(4, true);
  const vertexBytes = bytes.subarray(8, 8 + 16 * nVertices);
  const faceBytes = bytes.subarray(8 + 16 * nVertices, 8 + 16 * nVertices + 6 * nFaces);

  const vertexSource = `
    attribute vec4 position; attribute vec3 normal; attribute vec4 color;
    uniform mat3 turn; uniform vec2 shift; uniform float zoom; uniform float aspect; uniform mediump float mode;
    varying mediump vec3 vNormal; varying mediump vec3 vColor;
    vec3 ramp(float t) {
      return t < 0.5 ? mix(vec3(0.78, 0.16, 0.12), vec3(0.96, 0.78, 0.25), 2.0 * t)
                     : mix(vec3(0.96, 0.78, 0.25), vec3(0.20, 0.56, 0.35), 2.0 * t - 1.0);
    }
    void main() {
      vec3 p = turn * (position.xyz * 2.0 - 1.0);
      vNormal = turn * normal;
      vColor = mode < 0.5 ? color.rgb : mode < 1.5 ? vec3(0.74) : ramp(min(color.a * 255.0 / 8.0, 1.0));
      float depth = 3.2 - p.z;
      vec2 fit = aspect > 1.0 ? vec2(1.0 / aspect, 1.0) : vec2(1.0, aspect);
      gl_Position = vec4((p.xy * zoom * 3.0 + shift * depth) * fit, 1.4 * depth - 2.4, depth);  // near 1, far 6
    }`;
  const fragmentSource = `
    precision mediump float;
    varying vec3 vNormal; varying vec3 vColor; uniform mediump float mode;
    void main() {
      vec3 n = normalize(vNormal);
      if (!gl_FrontFacing) n = -n;
      float light = 0.35 + 0.65 * max(dot(n, normalize(vec3(0.3, 0.5, 0.8))), 0.0);
      float shade = mode < 0.5 ? 0.7 + 0.3 * light : light;
      gl_FragColor = vec4(vColor * shade * (gl_FrontFacing ? 1.0 : 0.6), 1.0);
    }`;

  function shader(kind, source) {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
    return made;
  }
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, vertexSource));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, fragmentSource));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);

  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, vertexBytes, gl.STATIC_DRAW);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faceBytes, gl.STATIC_DRAW);
  const layout = [["position", 4, gl.UNSIGNED_SHORT, 8, 0], ["normal", 3, gl.BYTE, 4, 8], ["color", 4, gl.UNSIGNED_BYTE, 4, 12]];
  for (const [name, size, type, width, before] of layout) {
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, type, true, width, before * nVertices);
  }
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [uTurn, uShift, uZoom, uAspect, uMode] = ["turn", "shift", "zoom", "aspect", "mode"].map(uniform);
  gl.enable(gl.DEPTH_TEST);

  let yaw = 0, pitch = 0.35, zoom = 1, shift = [0, 0], mode = 0, waiting = false;
  function draw() {
    waiting = false;
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
    gl.uniformMatrix3fv(uTurn, false, [cy, sp * sy, -cp * sy, 0, cp, sp, sy, -sp * cy, cp * cy]);
    gl.uniform2f(uShift, shift[0], shift[1]);
    gl.uniform1f(uZoom, zoom);
    gl.uniform1f(uAspect, width / height);
    gl.uniform1f(uMode, mode);
    gl.drawElements(gl.TRIANGLES, 3 * nFaces, gl.UNSIGNED_SHORT, 0);
  }
  function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }

  const fingers = new Map();
  function zoomBy(factor) { zoom = Math.min(12, Math.max(0.3, zoom * factor)); redraw(); }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY], move = [now[0] - last[0], now[1] - last[1]];
    const others = [...fingers].filter(([id]) => id !== event.pointerId);
    const half = Math.min(canvas.clientWidth, canvas.clientHeight) / 2;
    if (others.length) {
      const other = others[0][1];
      const before = Math.hypot(last[0] - other[0], last[1] - other[1]);
      zoomBy(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(before, 1));
      shift = [shift[0] + move[0] / half / 2, shift[1] - move[1] / half / 2];
    } else if (event.shiftKey || event.buttons === 2) {
      shift = [shift[0] + move[0] / half, shift[1] - move[1] / half];
    } else {
      yaw += move[0] / half * 1.6;
      pitch = Math.min(1.57, Math.max(-1.57, pitch + move[1] / half * 1.6));
    }
    fingers.set(event.pointerId, now);
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomBy(Math.exp(-event.deltaY / 500)); }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => { yaw = 0; pitch = 0.35; zoom = 1; shift = [0, 0]; redraw(); });
  canvas.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 1.2 : 1 / 1.2);
    if (!turns[event.key]) return;
    event.preventDefault();
    yaw += turns[event.key][0];
    pitch = Math.min(1.57, Math.max(-1.57, pitch + turns[event.key][1]));
    redraw();
  });
  for (const button of document.querySelectorAll("button[data-mode]")) {
    button.addEventListener("click", () => {
      mode = Number(button.dataset.mode);
      for (const other of document.querySelectorAll("button[data-mode]")) other.setAttribute("aria-pressed", String(other === button));
      redraw();
    });
  }
  new ResizeObserver(redraw).observe(canvas);
  draw();
  holder.classList.add("live");
})();
