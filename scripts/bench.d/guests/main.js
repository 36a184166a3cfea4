// Loads for a second, then requires late.js, which prints a line; then waits, as
// a server would. The argument is how many megabytes it holds besides.
// The first output of all loads the modules for streams and sets the stream up,
// for several milliseconds, which is not what is measured.
console.log("loading");
const held = [];
for (let n = 0; n < Number(process.argv[2]) * 11000; n++) held.push({ n, name: `${n}` });
for (let n = 0; n < 10; n++) require(`./part${n}.js`);
require("./late.js");
setInterval(() => held.length, 3600000);
