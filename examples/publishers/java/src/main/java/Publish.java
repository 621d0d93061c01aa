import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.HexFormat;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Publishes a batch of observations and one of labels: Publish FOLDER. */
public final class Publish {
  static final String PIPELINE =
      System.getenv().getOrDefault("DRIFTLOOP_PIPELINE", "bike-demand");
  static final String SOURCE = "city-counter";

  static Future<RecordMetadata> publish(
      KafkaProducer<String, byte[]> producer, String topic, byte[] rows) throws Exception {
    byte[] digest = MessageDigest.getInstance("SHA-256").digest(rows);
    String key = PIPELINE + "/" + SOURCE; // messages of one source stay in order
    var message = new ProducerRecord<>(topic, key, rows);
    Map.of(
            "content-type", "application/x-ndjson",
            "ce_specversion", "1.0",
            "ce_id", HexFormat.of().formatHex(digest), // the same when sent again
            "ce_source", "/upstream/" + SOURCE,
            "ce_type", "io.driftloop." + topic + ".v1",
            "ce_subject", PIPELINE,
            "ce_time", Instant.now().toString())
        .forEach(
            (name, value) ->
                message.headers().add(name, value.getBytes(StandardCharsets.UTF_8)));
    return producer.send(message);
  }

  public static void main(String[] arguments) throws Exception {
    Path folder = Path.of(arguments[0]);
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers",
            System.getenv().getOrDefault("DRIFTLOOP_BROKER", "127.0.0.1:9092"),
            "acks", "all", // written to every replica in sync
            "enable.idempotence", true, // a retry neither doubles nor reorders
            "max.block.ms", 30_000,
            "request.timeout.ms", 20_000,
            "delivery.timeout.ms", 30_000);
    try (var producer =
        new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
      var observations =
          publish(
              producer,
              "observation-arrived",
              Files.readAllBytes(folder.resolve("observations.ndjson")));
      var labels =
          publish(
              producer, "label-arrived", Files.readAllBytes(folder.resolve("labels.ndjson")));
      observations.get(); // returns when it is written, throws when it has failed
      labels.get();
      System.out.println("published");
    } catch (ExecutionException error) {
      System.err.println("not published, send it again: " + error.getCause());
      System.exit(1);
    }
  }
}
