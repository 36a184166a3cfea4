// Modules, synchronous and asynchronous reads (libuv's threads), a listed folder, a child
// with a pipe, streams, links, exclusive files, and a rejected promise at times.
const fs = require('fs');
const { execFileSync } = require('child_process');

function work(rounds) {
  let x = 1;
  for (let i = 0; i < rounds; i++) x = (Math.imul(x, 1103515245) + i) >>> 0;
  return x;
}

function number(text) {
  const found = /@(\d+)@/.exec(text);
  return found ? Number(found[1]) % 1000003 : 0;
}

function optional(name) {
  try {
    return fs.readFileSync(name, 'utf8').trim();
  } catch (error) {
    return 'none ' + error.code;
  }
}

async function main() {
  console.log('begin', work(5e6));
  const shapes = require('./lib/shapes.js');
  console.log(shapes.name, shapes.area(3), work(5e6));
  const config = JSON.parse(fs.readFileSync('config.json', 'utf8'));
  console.log('config', config.title, config.pages, work(5e6));
  console.log('local', optional('local.json'));
  fs.appendFileSync('history.log', `run ${config.title}\n`);

  fs.mkdirSync('site/deep', { recursive: true });
  let sum = 0;
  for (const name of fs.readdirSync('pages').sort()) {
    const text = await fs.promises.readFile(`pages/${name}`, 'utf8');
    sum += number(text);
    await fs.promises.writeFile(`site/${name}.html`, `<p>${text.trim()}</p>\n`);
    console.log(name, sum, work(2e6));
  }
  const texts = await Promise.all(
    ['parallel1.txt', 'parallel2.txt'].map((name) => fs.promises.readFile(name, 'utf8')));
  console.log('parallel', texts.map((text) => text.trim()).join(), work(5e6));

  const out = fs.openSync('site/index.bin', 'wx+');
  fs.writeSync(out, Buffer.alloc(16));
  fs.writeSync(out, `sum ${sum}\n`);
  fs.writeSync(out, Buffer.from(String(sum).padStart(15)), 0, 15, 0);
  fs.closeSync(out);
  fs.writeFileSync('site/temporary', 'x'.repeat(100));
  fs.renameSync('site/temporary', 'site/final');
  fs.symlinkSync('../final', 'site/deep/link');
  fs.linkSync('site/final', 'site/hard');
  fs.chmodSync('site/final', 0o600);
  fs.rmSync('old', { recursive: true, force: true });
  console.error('on standard error', sum);
  console.log('child', execFileSync('cat', ['child.txt'], { encoding: 'utf8' }).trim());
  const last = number(optional('last.txt'));
  fs.appendFileSync('history.log', `last ${last}\n`);
  console.log('last', last, work(5e6));
  if (last % 5 === 4) process.abort();
  process.exitCode = last % 3;
}

main().catch((error) => {
  // The stack has line numbers of Node's own.
  console.error('failed:', error.message);
  process.exitCode = 7;
});
