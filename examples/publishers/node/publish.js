// Publish a batch of observations and one of labels: publish.js FOLDER.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ProduceAcks, Producer } from '@platformatic/kafka'

const pipeline = process.env.DRIFTLOOP_PIPELINE ?? 'bike-demand'
const source = 'city-counter'
const folder = process.argv[2]

function message (topic, file) {
  const rows = readFileSync(join(folder, file))
  const headers = {
    'content-type': 'application/x-ndjson',
    ce_specversion: '1.0',
    ce_id: createHash('sha256').update(rows).digest('hex'), // the same when sent again
    ce_source: `/upstream/${source}`,
    ce_type: `io.driftloop.${topic}.v1`,
    ce_subject: pipeline,
    ce_time: new Date().toISOString()
  }
  return {
    topic,
    key: Buffer.from(`${pipeline}/${source}`), // messages of one source stay in order
    value: rows,
    headers: new Map(
      Object.entries(headers).map(([name, value]) => [Buffer.from(name), Buffer.from(value)])
    )
  }
}

const producer = new Producer({
  clientId: source,
  bootstrapBrokers: [process.env.DRIFTLOOP_BROKER ?? '127.0.0.1:9092'],
  acks: ProduceAcks.ALL, // written to every replica in sync
  idempotent: true // a retry neither doubles nor reorders
})

// An idempotent producer of this library tries for ever.
const late = setTimeout(() => {
  console.error('not published within 30 s, send it again')
  process.exit(1)
}, 30_000)

try {
  await producer.send({
    messages: [
      message('observation-arrived', 'observations.ndjson'),
      message('label-arrived', 'labels.ndjson')
    ]
  }) // returns when each is written, throws when one has failed
  console.log('published')
} catch (error) {
  console.error('not published, send it again:', error)
  process.exit(1)
}
clearTimeout(late)
await producer.close()
