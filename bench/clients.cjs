// Asks an exported ONNX file in Node: node clients.cjs MODEL.onnx SHOWN.json
//
// SHOWN.json is a list of pictures, each {file, height, width, channels}: raw bytes of 8 bits, row by row. Prints
// what each probability is, and the likeliest class by the names in MODEL.onnx.json, since Node reads no metadata.
const fs = require("fs");
const ort = require("onnxruntime-node");

async function main() {
  const [, , model, list] = process.argv;
  const said = JSON.parse(fs.readFileSync(`${model}.json`, "utf8"));
  const session = await ort.InferenceSession.create(model);
  const answers = [];
  for (const shown of JSON.parse(fs.readFileSync(list, "utf8"))) {
    const bytes = new Uint8Array(fs.readFileSync(shown.file));
    const picture = new ort.Tensor("uint8", bytes, [shown.height, shown.width, shown.channels]);
    const given = await session.run({ [said.input.name]: picture });
    const probabilities = Array.from(given.probabilities.data);
    const best = probabilities.indexOf(Math.max(...probabilities));
    answers.push({ label: said.labels[best], probabilities });
  }
  console.log(JSON.stringify({ inputs: session.inputNames, outputs: session.outputNames, answers }));
}

main();
