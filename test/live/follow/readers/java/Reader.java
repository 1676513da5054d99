import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bouncycastle.crypto.digests.Blake2bDigest;

/** A reader of a live copy, as test/support/oracle/reader.py is one, on org.xerial:sqlite-jdbc. */
public class Reader {
    record State(long seq, long digest) {}

    static long digest(byte[]... parts) {
        Blake2bDigest hash = new Blake2bDigest(64);
        for (byte[] part : parts) hash.update(part, 0, part.length);
        byte[] out = new byte[8];
        hash.doFinal(out, 0);
        return ByteBuffer.wrap(out).order(ByteOrder.LITTLE_ENDIAN).getLong();
    }

    static byte[] words(long... numbers) {
        ByteBuffer bytes = ByteBuffer.allocate(8 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
        for (long number : numbers) bytes.putLong(number);
        return bytes.array();
    }

    static byte[] text(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The state that the connection sees; the rules are state.py's. */
    static State prove(Statement db, boolean integrity) throws Exception {
        if (integrity) {
            try (ResultSet rows = db.executeQuery("PRAGMA integrity_check(1)")) {
                if (!rows.getString(1).equals("ok")) throw new Exception("integrity_check: " + rows.getString(1));
            }
        }
        long seq, recorded, count;
        try (ResultSet rows = db.executeQuery("SELECT seq, digest, rows FROM oracle")) {
            seq = rows.getLong(1);
            recorded = rows.getLong(2);
            count = rows.getLong(3);
        }
        long found = digest(text("oracle"), words(seq, count));
        List<String> tables = new ArrayList<>();
        String schema = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL";
        try (ResultSet rows = db.executeQuery(schema)) {
            while (rows.next()) {
                String name = rows.getString(2);
                found ^= digest(text(String.join("\0", rows.getString(1), name, rows.getString(3), rows.getString(4))));
                if (rows.getString(1).equals("table") && !name.equals("oracle") && !name.startsWith("sqlite_")) {
                    tables.add(name);
                }
            }
        }
        long newest = 0, total = 0, seen = 0;
        for (String table : tables) {
            byte[] name = text(table);
            try (ResultSet rows = db.executeQuery("SELECT id, seq, number, payload FROM " + table)) {
                while (rows.next()) {
                    long written = rows.getLong(2), number = rows.getLong(3);
                    found ^= digest(name, words(rows.getLong(1), written, number), rows.getBytes(4));
                    seen++;
                    newest = Math.max(newest, written);
                    if (table.equals("account")) total += number;
                }
            }
        }
        if (seen != count || newest != seq || total != 0 || found != recorded) {
            throw new Exception("state " + seq + ": " + seen + " rows of " + count + ", newest " + newest
                + ", balances " + total + ", digest " + Long.toHexString(found) + " of " + Long.toHexString(recorded));
        }
        return new State(seq, found);
    }

    static Map<Long, Long> ledger(Path path) throws Exception {
        Map<Long, Long> known = new HashMap<>();
        ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN);
        while (bytes.remaining() >= 24) {
            known.put(bytes.getLong(), bytes.getLong());
            bytes.getLong();
        }
        return known;
    }

    public static void main(String[] args) throws Exception {
        Path ledger = Path.of(args[1]);
        long pauseMs = Math.round(Double.parseDouble(args[2]) * 1000);
        String url = "jdbc:sqlite:" + Path.of(args[0]).toUri().toString().replaceFirst("^file:/+", "file:/") + "?mode=ro";
        Map<Long, Long> known = new HashMap<>();
        Set<Long> states = new HashSet<>();
        List<String> wrong = new ArrayList<>();
        long last = 0, reads = 0;
        try (Connection connection = DriverManager.getConnection(url); Statement db = connection.createStatement()) {
            db.execute("PRAGMA busy_timeout = 20000");
            System.out.println("{\"ready\": " + ProcessHandle.current().pid() + "}");
            while (System.in.available() == 0) {
                db.execute("BEGIN");
                State state = prove(db, reads % 8 == 0);
                Thread.sleep(pauseMs);
                long again = prove(db, false).seq();
                db.execute("COMMIT");
                reads++;
                long seq = state.seq();
                states.add(seq);
                if (again != seq || seq < last) {
                    wrong.add(seq + " after " + last + ", " + again + " inside its transaction");
                }
                last = seq;
                long deadline = System.nanoTime() + 20_000_000_000L;
                while (!known.containsKey(seq) && System.nanoTime() < deadline) known = ledger(ledger);
                if (!Long.valueOf(state.digest()).equals(known.get(seq))) {
                    wrong.add(seq + " has another digest than its commit left");
                }
            }
        } catch (Exception error) {
            wrong.add(String.valueOf(error.getMessage()).replaceAll("[\"\\\\\n]", " "));
        }
        String list = wrong.isEmpty() ? "" : "\"" + String.join("\", \"", wrong) + "\"";
        System.out.println("{\"reads\": " + reads + ", \"states\": " + states.size() + ", \"last\": " + last
            + ", \"wrong\": [" + list + "]}");
    }
}
