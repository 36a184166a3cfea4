// Streams, a pool of threads, a random access file whose header is patched, an atomic
// move, links, a listed folder, and an exception at times.

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Main {
    static int work(int rounds) {
        int x = 1;
        for (int i = 0; i < rounds; i++) {
            x = x * 1103515245 + i;
        }
        return x;
    }

    static int number(String text) {
        String[] parts = text.split("@");
        return parts.length < 2 ? 0 : (int) (Long.parseLong(parts[1]) % 1000003);
    }

    static String slurp(String name) throws IOException {
        Path path = Path.of(name);
        return Files.exists(path) ? Files.readString(path).strip() : "none";
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println("begin " + work(8000000));
        System.out.println(slurp("config.txt") + " " + work(8000000));
        Files.writeString(Path.of("ledger.txt"), "started\n", StandardOpenOption.APPEND, StandardOpenOption.CREATE);
        System.out.println("override " + slurp("override.txt") + " " + work(8000000));
        int sum = 0;
        var pool = Executors.newFixedThreadPool(2);
        try (var names = Files.list(Path.of("data"))) {
            List<Future<Integer>> all = new ArrayList<>();
            for (Path name : names.sorted().toList()) {
                all.add(pool.submit(() -> number(Files.readString(name)) + work(1000) * 0));
            }
            for (var one : all) {
                sum += one.get();
            }
        }
        pool.shutdown();
        System.out.println("sum " + sum + " " + work(8000000));
        Files.createDirectories(Path.of("out/deep"));
        try (var out = new RandomAccessFile("out/table", "rw"); var lines = Files.newBufferedReader(Path.of("words.txt"))) {
            out.writeInt(0);
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                out.writeUTF(line);
                work(2000000);
            }
            long length = out.length();
            out.seek(0);
            out.writeInt((int) length);
        }
        Files.writeString(Path.of("out/new"), "sum " + sum + "\n");
        Files.move(Path.of("out/new"), Path.of("out/sum"), StandardCopyOption.ATOMIC_MOVE);
        Files.createSymbolicLink(Path.of("out/current"), Path.of("sum"));
        Files.createLink(Path.of("out/deep/same"), Path.of("out/sum"));
        Files.deleteIfExists(Path.of("stale.txt"));
        int last = number(slurp("last.txt"));
        Files.writeString(Path.of("ledger.txt"), "last " + last + "\n", StandardOpenOption.APPEND);
        System.out.println("last " + last);
        if (last % 5 == 4) {
            throw new IllegalStateException("unlucky " + last);
        }
        System.exit(last % 3);
    }
}
