// A reader of a live copy, as test/support/oracle/reader.py is one, on modernc.org/sqlite.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2b"
	_ "modernc.org/sqlite"
)

var ctx = context.Background()

func digest(parts ...[]byte) uint64 {
	hash, _ := blake2b.New(8, nil)
	for _, part := range parts {
		hash.Write(part)
	}
	return binary.LittleEndian.Uint64(hash.Sum(nil))
}

func words(numbers ...int64) []byte {
	var bytes []byte
	for _, number := range numbers {
		bytes = binary.LittleEndian.AppendUint64(bytes, uint64(number))
	}
	return bytes
}

func each(db *sql.Conn, query string, into []any, row func() error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := row(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// prove gives sequence number and digest of the state that the connection sees; the rules are state.py's.
func prove(db *sql.Conn, integrity bool) (int64, uint64, error) {
	if integrity {
		var verdict string
		if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil || verdict != "ok" {
			return 0, 0, fmt.Errorf("integrity_check: %s %v", verdict, err)
		}
	}
	var seq, recorded, count int64
	if err := db.QueryRowContext(ctx, "SELECT seq, digest, rows FROM oracle").Scan(&seq, &recorded, &count); err != nil {
		return 0, 0, err
	}
	found := digest([]byte("oracle"), words(seq, count))
	var kind, name, table, text string
	var tables []string
	err := each(db, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL",
		[]any{&kind, &name, &table, &text}, func() error {
			found ^= digest([]byte(strings.Join([]string{kind, name, table, text}, "\x00")))
			if kind == "table" && name != "oracle" && !strings.HasPrefix(name, "sqlite_") {
				tables = append(tables, name)
			}
			return nil
		})
	if err != nil {
		return 0, 0, err
	}
	var id, written, number, newest, total, rows int64
	var payload sql.RawBytes
	for _, table := range tables {
		err := each(db, "SELECT id, seq, number, payload FROM "+table, []any{&id, &written, &number, &payload}, func() error {
			found ^= digest([]byte(table), words(id, written, number), payload)
			rows++
			newest = max(newest, written)
			if table == "account" {
				total += number
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	if rows != count || newest != seq || total != 0 || found != uint64(recorded) {
		return 0, 0, fmt.Errorf("state %d: %d rows of %d, newest %d, balances %d, digest %x of %x",
			seq, rows, count, newest, total, found, uint64(recorded))
	}
	return seq, found, nil
}

func ledger(path string) map[int64]uint64 {
	known := map[int64]uint64{}
	bytes, _ := os.ReadFile(path)
	for ; len(bytes) >= 24; bytes = bytes[24:] {
		known[int64(binary.LittleEndian.Uint64(bytes))] = binary.LittleEndian.Uint64(bytes[8:])
	}
	return known
}

func main() {
	pause, _ := strconv.ParseFloat(os.Args[3], 64)
	name := url.URL{Scheme: "file", Path: os.Args[1], RawQuery: "mode=ro&_pragma=busy_timeout(20000)"}
	pool, err := sql.Open("sqlite", name.String())
	if err != nil {
		panic(err)
	}
	db, err := pool.Conn(ctx)
	if err != nil {
		panic(err)
	}
	var stopped atomic.Bool
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		stopped.Store(true)
	}()
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]any{"ready": os.Getpid()})
	var last int64
	reads, states, wrong := 0, map[int64]bool{}, []string{}
	known := map[int64]uint64{}
	for !stopped.Load() {
		_, err := db.ExecContext(ctx, "BEGIN")
		var seq, again int64
		var found uint64
		if err == nil {
			seq, found, err = prove(db, reads%8 == 0)
		}
		time.Sleep(time.Duration(pause * float64(time.Second)))
		if err == nil {
			again, _, err = prove(db, false)
		}
		if err == nil {
			_, err = db.ExecContext(ctx, "COMMIT")
		}
		if err != nil {
			wrong = append(wrong, err.Error())
			break
		}
		reads++
		states[seq] = true
		if again != seq || seq < last {
			wrong = append(wrong, fmt.Sprintf("%d after %d, %d inside its transaction", seq, last, again))
		}
		last = seq
		for deadline := time.Now().Add(20 * time.Second); known[seq] == 0 && time.Now().Before(deadline); {
			known = ledger(os.Args[2])
		}
		if known[seq] != found {
			wrong = append(wrong, fmt.Sprintf("%d has another digest than its commit left", seq))
		}
	}
	out.Encode(map[string]any{"reads": reads, "states": len(states), "last": last, "wrong": wrong})
}
