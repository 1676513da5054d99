//! A reader of a live copy, as test/support/oracle/reader.py is one, on rusqlite.

use blake2::digest::{consts::U8, Digest};
use blake2::Blake2b;
use rusqlite::{Connection, OpenFlags};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn digest(parts: &[&[u8]]) -> i64 {
    let mut hash = Blake2b::<U8>::new();
    for part in parts {
        hash.update(part);
    }
    i64::from_le_bytes(hash.finalize().into())
}

fn words(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sequence number and digest of the state that the connection sees; the rules are state.py's.
fn prove(db: &Connection, integrity: bool) -> Result<(i64, i64), Box<dyn Error>> {
    if integrity {
        let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(format!("integrity_check: {verdict}").into());
        }
    }
    let (seq, recorded, count): (i64, i64, i64) = db.query_row("SELECT seq, digest, rows FROM oracle", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut found = digest(&[b"oracle", &words(&[seq, count])]);
    let mut tables = Vec::new();
    let mut schema = db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")?;
    let mut rows = schema.query([])?;
    while let Some(row) = rows.next()? {
        let entry: [String; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
        found ^= digest(&[entry.join("\0").as_bytes()]);
        if entry[0] == "table" && entry[1] != "oracle" && !entry[1].starts_with("sqlite_") {
            tables.push(entry[1].clone());
        }
    }
    let (mut newest, mut total, mut seen) = (0, 0, 0);
    for table in &tables {
        let mut all = db.prepare(&format!("SELECT id, seq, number, payload FROM {table}"))?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let (id, written, number): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            found ^= digest(&[table.as_bytes(), &words(&[id, written, number]), row.get_ref(3)?.as_blob()?]);
            seen += 1;
            newest = newest.max(written);
            if table == "account" {
                total += number;
            }
        }
    }
    if seen != count || newest != seq || total != 0 || found != recorded {
        return Err(format!(
            "state {seq}: {seen} rows of {count}, newest {newest}, balances {total}, digest {found:x} of {recorded:x}"
        )
        .into());
    }
    Ok((seq, found))
}

fn ledger(path: &str) -> HashMap<i64, i64> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let word = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(24).map(|entry| (word(&entry[..8]), word(&entry[8..16]))).collect()
}

fn read(db: &Connection, integrity: bool, pause: Duration) -> Result<(i64, i64, i64), Box<dyn Error>> {
    db.execute_batch("BEGIN")?;
    let (seq, found) = prove(db, integrity)?;
    std::thread::sleep(pause);
    let (again, _) = prove(db, false)?;
    db.execute_batch("COMMIT")?;
    Ok((seq, found, again))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let pause = Duration::from_secs_f64(args[3].parse()?);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{}?mode=ro", args[1]), flags)?;
    db.busy_timeout(Duration::from_secs(20))?;
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = stopped.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        stop.store(true, Ordering::Relaxed);
    });
    println!("{{\"ready\": {}}}", std::process::id());
    let (mut known, mut states, mut wrong) = (HashMap::new(), HashSet::new(), Vec::<String>::new());
    let (mut last, mut reads) = (0, 0);
    while !stopped.load(Ordering::Relaxed) {
        let (seq, found, again) = match read(&db, reads % 8 == 0, pause) {
            Ok(seen) => seen,
            Err(error) => {
                wrong.push(error.to_string().replace(['"', '\\', '\n'], " "));
                break;
            }
        };
        reads += 1;
        states.insert(seq);
        if again != seq || seq < last {
            wrong.push(format!("{seq} after {last}, {again} inside its transaction"));
        }
        last = seq;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !known.contains_key(&seq) && Instant::now() < deadline {
            known = ledger(&args[2]);
        }
        if known.get(&seq) != Some(&found) {
            wrong.push(format!("{seq} has another digest than its commit left"));
        }
    }
    let list: Vec<String> = wrong.iter().map(|text| format!("\"{text}\"")).collect();
    println!(
        "{{\"reads\": {reads}, \"states\": {}, \"last\": {last}, \"wrong\": [{}]}}",
        states.len(),
        list.join(", ")
    );
    Ok(())
}
