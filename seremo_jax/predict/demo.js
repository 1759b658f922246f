// The page of launch.demo: takes a recording, sends it to the server that the page came from, draws its answer.
"use strict";

const MOST_RECORDED_S = 600;
const at = id => document.getElementById(id);
const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
const seconds = s => `${s.toFixed(s < 60 ? 2 : 1)}\u00a0s`;
let about = null, shown = null, microphone = null;

function element(name, content = "", attributes = {}) {
  const one = document.createElement(name);
  one.textContent = content;
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

function shape(name, attributes) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

// Ink on a wider line of paper, to be seen on any colour.
const lines = place => ["under", "over"].map(name => shape("line", {...place, class: name}));

const shade = name => `class-${about.classes.indexOf(name) % 10}`;

function say(status, error = "") {
  at("status").textContent = status;
  at("error").textContent = error;
}

async function json(reply) {
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

async function hear(blob, name) {
  if (blob.size > about.most_bytes) {
    const mb = bytes => `${Math.round(bytes / 2 ** 20)} MB`;
    say("", `${name} has ${mb(blob.size)}, and at most ${mb(about.most_bytes)} are taken here: cut it, or use launch.predict.`);
    return;
  }
  at("choose").disabled = at("record").disabled = true;
  at("answer").hidden = true;
  say(`Listening to ${name} …`);
  try {
    const suffix = name.slice(name.lastIndexOf(".")).toLowerCase();
    const sent = about.browser_decodes.includes(suffix) ? await decoded(blob, name) : blob;
    const reply = await fetch(`/hear?name=${encodeURIComponent(name)}`, {method: "POST", body: sent}).catch(() => {
      throw new Error("the server does not answer: look at the terminal where launch.demo runs");
    });
    show(await json(reply), blob);
    say(`Heard ${name}.`);
    at("name").focus();
  } catch (error) {
    say("", error.message);
  }
  at("choose").disabled = at("record").disabled = false;
}

// What the server's decoder does not know, such as M4A of a phone, a browser may; samples go on at their own rate.
async function decoded(blob, name) {
  try {
    const context = new OfflineAudioContext(1, 1, 48000);
    const audio = await context.decodeAudioData(await blob.arrayBuffer());
    const mono = new Float32Array(audio.length);
    for (let c = 0; c < audio.numberOfChannels; c++) {
      audio.getChannelData(c).forEach((value, i) => { mono[i] += value / audio.numberOfChannels; });
    }
    return wav([mono], audio.sampleRate);
  } catch {
    return blob;  // The server then says why it cannot be used.
  }
}

function wav(blocks, rate) {
  const length = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const text = (offset, letters) => [...letters].forEach((letter, i) => view.setUint8(offset + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * length, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * length, true);
  let place = 44;
  for (const block of blocks) {
    for (const value of block) {
      view.setInt16(place, Math.max(-32768, Math.min(32767, Math.round(32768 * value))), true);
      place += 2;
    }
  }
  return new Blob([view], {type: "audio/wav"});
}

async function record() {
  if (microphone) return stop();
  say("");
  if (!navigator.mediaDevices) {
    return say("", "The browser gives the microphone only to a page opened at 127.0.0.1 or localhost: choose a file instead.");
  }
  const blocks = [];
  try {
    // As it is: what makes a call pleasant changes level and tone, by which emotion is heard.
    const wanted = {channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false};
    const stream = await navigator.mediaDevices.getUserMedia({audio: wanted});
    const context = new AudioContext();
    microphone = {stream, context, blocks};
    await context.audioWorklet.addModule("/recorder.js");
    const node = new AudioWorkletNode(context, "recorder", {numberOfOutputs: 0});
    let samples = 0;
    node.port.onmessage = event => {
      if (!microphone) return;
      blocks.push(...event.data);
      samples += event.data.reduce((sum, block) => sum + block.length, 0);
      at("level").value = Math.max(...event.data.map(block => block.reduce((most, v) => Math.max(most, Math.abs(v)), 0)));
      at("seconds").textContent = `${(samples / context.sampleRate).toFixed(1)} s`;
      if (samples > MOST_RECORDED_S * context.sampleRate) stop();
    };
    context.createMediaStreamSource(stream).connect(node);
    await context.resume();
  } catch (error) {
    release();
    const why = error.name === "NotAllowedError" ? "it was not allowed; the sign beside the address changes that"
      : error.name === "NotFoundError" ? "there is none" : error.message;
    return say("", `The microphone cannot be used: ${why}.`);
  }
  at("record").textContent = "Stop and listen";
  at("record").setAttribute("aria-pressed", "true");
  at("choose").disabled = true;
  at("meter").hidden = false;
  say("Recording.");
}

function release() {
  if (!microphone) return null;
  const {stream, context, blocks} = microphone, rate = context.sampleRate;
  microphone = null;
  stream.getTracks().forEach(track => track.stop());
  context.close();
  at("record").textContent = "Use the microphone";
  at("record").setAttribute("aria-pressed", "false");
  at("choose").disabled = false;
  at("meter").hidden = true;
  return {blocks, rate};
}

function stop() {
  const {blocks, rate} = release();
  hear(wav(blocks, rate), "microphone.wav");
}

function show(answer, blob) {
  shown = answer;
  const {record, over_time: overTime} = answer;
  at("name").textContent = `${record.file}, ${seconds(record.duration_s)}`;
  at("warnings").replaceChildren(...answer.warnings.map(text => element("li", text)));
  at("best").replaceChildren(...record.best.map((name, n) => {
    const tile = element("div", "", {class: "tile"});
    tile.append(element("span", `${n + 1}-best`), element("b", name), element("small", percent(record.distribution[name])));
    return tile;
  }));
  at("shares").replaceChildren(...Object.keys(record.distribution).map(name => share(record, name)));
  at("spread").textContent = record.distribution_sd
    ? `Line and ±: standard deviation over the ${about.num_members} heads, in percentage points`
      + " (before calibration). It says how far trainings differ, and not how far raters do."
    : "The model has one head, so nothing is known of the spread over seeds.";
  at("set").textContent = record.conformal_set === null ? ""
    : `Conformal set${about.coverage ? `, fitted to hold ${100 * about.coverage} % of votes` : ""}: `
      + `${record.conformal_set.join(", ") || "empty"}.`;
  const sd = name => record.attributes_sd ? ` ± ${record.attributes_sd[name].toFixed(2)}` : "";
  at("attributes").textContent = Object.entries(record.attributes)
    .map(([name, value]) => `${name} ${value.toFixed(2)}${sd(name)}`).join(", ");
  at("stretches").textContent = overTime.segments.length === 1
    ? "It is too short for more than one stretch."
    : (overTime.is_heard_whole
      ? "The shares above are of the recording as a whole. Here the heads judge stretches of it alone, "
      : "It is heard in windows, and the shares above are their mean, weighted by length: ")
      + `${overTime.segments.length} stretches of ${seconds(overTime.segments[0].end_s - overTime.segments[0].start_s)}.`;
  at("record-json").textContent = JSON.stringify(record, null, 1);
  draw(answer);
  tabulate(overTime.segments);
  if (at("sound").src) URL.revokeObjectURL(at("sound").src);
  at("sound").hidden = false;
  at("sound").src = URL.createObjectURL(blob);
  at("answer").hidden = false;
  move(0);
}

function share(record, name) {
  const row = element("div", "", {class: `share ${shade(name)}`, role: "listitem"});
  const bar = shape("svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"});
  const value = record.distribution[name], sd = record.distribution_sd ? record.distribution_sd[name] : null;
  bar.append(shape("rect", {width: 100 * value, height: 10}));
  if (sd !== null) {
    const [from, to] = [Math.max(0, value - sd), Math.min(1, value + sd)];
    bar.append(...lines({x1: 100 * from, x2: 100 * to, y1: 5, y2: 5}));
  }
  const text = sd === null ? percent(value) : `${percent(value)} ± ${(100 * sd).toFixed(1)}`;
  row.append(element("b", name), bar, element("span", text));
  return row;
}

function draw({record, waveform, over_time: {segments}}) {
  const x = s => 600 * Math.min(1, s / record.duration_s), bins = waveform.lowest.length;
  const peak = Math.max(...waveform.highest, ...waveform.lowest.map(Math.abs), 1e-4);
  const y = value => 50 - 47 * value / peak, width = 600 / bins;
  const up = waveform.highest.map((v, i) => `${width * (i + .5)},${y(Math.max(v, .008 * peak))}`);
  const down = waveform.lowest.map((v, i) => `${width * (i + .5)},${y(Math.min(v, -.008 * peak))}`).reverse();
  at("wave").replaceChildren(shape("path", {d: `M${[...up, ...down].join("L")}Z`}));
  at("wave").setAttribute("aria-label", `Waveform of ${seconds(record.duration_s)}, drawn up to its peak of ${peak.toFixed(3)}`);
  // From the middle of the first stretch back to the beginning, and from that of the last on to the end, it stays.
  const middle = segments.map(one => (one.start_s + one.end_s) / 2);
  const times = [0, ...middle, record.duration_s];
  const values = [segments[0], ...segments, segments.at(-1)].map(one => one.distribution);
  const below = times.map(() => 0), areas = [];
  for (const name of about.classes) {
    const floor = below.map((v, i) => `${x(times[i])},${200 * (1 - v)}`).reverse();
    values.forEach((one, i) => { below[i] += one[name]; });
    const top = below.map((v, i) => `${x(times[i])},${200 * (1 - v)}`);
    areas.push(shape("path", {class: shade(name), d: `M${[...top, ...floor].join("L")}Z`}));
  }
  at("curve").replaceChildren(...areas);
  const ends = [segments[0], segments.at(-1)].map(one => about.classes.reduce(
    (most, name) => one.distribution[name] > one.distribution[most] ? name : most));
  at("curve").setAttribute("aria-label", `Shares of votes over time, stacked: most for ${ends[0]} at the beginning and `
    + `for ${ends[1]} at the end. All numbers are in the table below.`);
  at("legend").replaceChildren(...about.classes.map(name => element("li", name, {class: shade(name)})));
  at("ticks").replaceChildren(...[0, .25, .5, .75, 1].map(part => element("span", seconds(part * record.duration_s))));
  at("cursor").max = record.duration_s;
  for (const [id, height] of [["wave", 100], ["curve", 200]]) {
    at(id).append(...lines({x1: 0, x2: 0, y1: 0, y2: height}));
  }
}

function move(time) {
  if (!shown) return;
  const {record, over_time: {segments}} = shown, x = 600 * Math.min(1, time / record.duration_s);
  for (const line of document.querySelectorAll(".plot line")) {
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
  const distance = one => Math.abs((one.start_s + one.end_s) / 2 - time);
  const one = segments.reduce((best, other) => distance(other) < distance(best) ? other : best);
  const order = Object.entries(one.distribution).sort((a, b) => b[1] - a[1]);
  const words = `${seconds(one.start_s)} to ${seconds(one.end_s)}: ${order.map(([name, v]) => `${name} ${percent(v)}`).join(", ")}`;
  at("moment").textContent = words;
  at("cursor").value = time;
  at("cursor").setAttribute("aria-valuetext", words);
}

function tabulate(segments) {
  const head = element("tr"), body = element("tbody"), top = element("thead");
  head.append(...["from", "to"].map(name => element("th", name, {scope: "col"})),
    ...about.classes.map(name => element("th", name, {scope: "col"})));
  top.append(head);
  for (const one of segments) {
    const row = element("tr");
    row.append(element("th", seconds(one.start_s), {scope: "row"}), element("td", seconds(one.end_s)),
      ...about.classes.map(name => element("td", percent(one.distribution[name]))));
    body.append(row);
  }
  at("table").replaceChildren(top, body);
}

function take(files) {
  if (microphone || at("choose").disabled) return;
  if (files.length === 1) hear(files[0], files[0].name);
  else say("", files.length ? "One recording at a time; launch.predict takes a folder." : "That was no file.");
}

async function begin() {
  at("choose").disabled = at("record").disabled = true;
  try {
    about = await json(await fetch("/about"));
  } catch (error) {
    return say("", `The server does not answer: ${error.message}`);
  }
  at("model").textContent = `${about.model}: ${about.num_members} ${about.num_members === 1 ? "head" : "heads"} on layer `
    + `${about.layers.join(", ")} of ${about.backbone}, trained on ${about.corpus} to say how its raters would vote.`;
  at("cannot-know").replaceChildren(...about.cannot_know.map(text => element("li", text)));
  at("choose").disabled = at("record").disabled = false;
  at("choose").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => { take(at("file").files); at("file").value = ""; });
  at("record").addEventListener("click", record);
  at("cursor").addEventListener("input", () => {
    move(Number(at("cursor").value));
    if (!at("sound").hidden) at("sound").currentTime = Number(at("cursor").value);
  });
  at("sound").addEventListener("timeupdate", () => { if (!at("sound").paused) move(at("sound").currentTime); });
  at("sound").addEventListener("error", () => { at("sound").hidden = true; });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, event => {
      event.preventDefault();
      at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
}

begin();
