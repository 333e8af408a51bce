// BullMQ's worker and producer for the benchmark: the same job, the same protocol
// with the parent process as the Go peers (see main.go).
//
//   node bullmq.mjs work PLAN | produce PLAN

import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { Pool } from "undici";

const queueName = "bench";
const jobName = "message";
// As the asynq peer: several attempts, nothing kept of what is done.
const jobOptions = { attempts: 5, backoff: { type: "exponential", delay: 1000 }, removeOnComplete: true };

const digits = 9;
const usernameSize = 254;
const filler = "@" + "x".repeat(usernameSize - digits - "@.example.org".length) + ".example.org";
const request = (number) => ({ username: String(number).padStart(digits, "0") + filler, type: "EMAIL" });

const tell = (event, data) => process.stdout.write(JSON.stringify({ event, data }) + "\n");

// The parent says "go"; the end of our stdin is our end.
let begin, stop;
const begun = new Promise((resolve) => (begin = resolve));
const stopped = new Promise((resolve) => (stop = resolve));
const input = createInterface({ input: process.stdin });
input.on("line", (line) => line === "go" && begin());
input.on("close", stop);
process.on("SIGTERM", stop);

function connect(plan, options = {}) {
  const url = new URL(plan.redis);
  return new Redis({ host: url.hostname, port: Number(url.port), ...options });
}

async function work(plan) {
  const status = connect(plan);
  const pool = new Pool(plan.provider, { connections: plan.in_flight, pipelining: 1 });
  const worker = new Worker(
    queueName,
    async (job) => {
      const body = JSON.stringify(job.data);
      const reply = await pool.request({
        path: "/security/v1/otp/request",
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      });
      await reply.body.dump();
      if (reply.statusCode !== 200) throw new Error(`the provider answered ${reply.statusCode}`);
      const number = Number(job.data.username.slice(0, digits));
      await status.hset(`bench:status:${number}`, "state", "accepted", "updated", Date.now(), "attempts", 1);
    },
    { connection: connect(plan, { maxRetriesPerRequest: null }), concurrency: plan.in_flight, autorun: false },
  );
  worker.on("error", (err) => console.error(err));
  await worker.waitUntilReady();
  tell("ready");
  await Promise.race([begun, stopped]);
  worker.run();
  await stopped;
  await worker.close();
  process.exit(0);
}

async function produce(plan) {
  const queue = new Queue(queueName, { connection: connect(plan) });
  await queue.waitUntilReady();
  tell("ready");
  await Promise.race([begun, stopped]);

  const add = (number) => queue.add(jobName, request(number), jobOptions);
  const start = process.hrtime.bigint();
  switch (plan.mode) {
    case "pace": {
      const times = new BigInt64Array(plan.n);
      const calls = [];
      let next = performance.now();
      for (let i = 0; i < plan.n; i++) {
        next += (plan.pace.Interval / 1e6) * (1 + plan.pace.Jitter * (2 * Math.random() - 1));
        await sleep(Math.max(0, next - performance.now()));
        times[i] = process.hrtime.bigint();
        calls.push(add(plan.first + i));
      }
      await Promise.all(calls);
      writeFileSync(plan.begun_file, Buffer.from(times.buffer));
      break;
    }
    case "fill": {
      let next = 0;
      const caller = async () => {
        while (next < plan.n) await add(plan.first + next++);
      };
      await Promise.all(Array.from({ length: plan.callers }, caller));
      break;
    }
    case "batch":
      for (let done = 0; done < plan.n; done += plan.batch) {
        const size = Math.min(plan.batch, plan.n - done);
        await queue.addBulk(
          Array.from({ length: size }, (_, i) => ({ name: jobName, data: request(plan.first + done + i), opts: jobOptions })),
        );
      }
      break;
    default:
      throw new Error(`there is no mode ${plan.mode}`);
  }
  const took = Number(process.hrtime.bigint() - start);
  writeFileSync(plan.ids_file, "\n".repeat(plan.n));
  tell("done", { took });
  await stopped;
  await queue.close();
  process.exit(0);
}

const [role, plan] = process.argv.slice(2);
await (role === "work" ? work : produce)(JSON.parse(plan));
