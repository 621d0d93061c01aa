// Publish a batch of observations and one of labels: publisher FOLDER.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const source = "city-counter"

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func message(pipeline, topic, file string) *kgo.Record {
	rows, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256(rows)
	record := &kgo.Record{
		Topic: topic,
		Key:   []byte(pipeline + "/" + source), // messages of one source stay in order
		Value: rows,
	}
	for name, value := range map[string]string{
		"content-type":   "application/x-ndjson",
		"ce_specversion": "1.0",
		"ce_id":          hex.EncodeToString(digest[:]), // the same when sent again
		"ce_source":      "/upstream/" + source,
		"ce_type":        "io.driftloop." + topic + ".v1",
		"ce_subject":     pipeline,
		"ce_time":        time.Now().UTC().Format(time.RFC3339Nano),
	} {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	return record
}

func main() {
	folder, pipeline := os.Args[1], env("DRIFTLOOP_PIPELINE", "bike-demand")
	client, err := kgo.NewClient(
		kgo.SeedBrokers(env("DRIFTLOOP_BROKER", "127.0.0.1:9092")),
		kgo.RequiredAcks(kgo.AllISRAcks()), // written to every replica in sync; writing is idempotent
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = client.ProduceSync(
		ctx,
		message(pipeline, "observation-arrived", filepath.Join(folder, "observations.ndjson")),
		message(pipeline, "label-arrived", filepath.Join(folder, "labels.ndjson")),
	).FirstErr() // returns when each is written, or has failed
	if err != nil {
		log.Fatalf("not published, send it again: %v", err)
	}
	fmt.Println("published")
}
