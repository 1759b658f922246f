// Runs on the audio thread: hands the samples of the first channel on, some blocks at a time.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.blocks = [];
  }

  process(inputs) {
    if (inputs[0].length) this.blocks.push(inputs[0][0].slice());
    if (this.blocks.length >= 16) this.port.postMessage(this.blocks.splice(0));
    return true;
  }
}
registerProcessor("recorder", Recorder);
