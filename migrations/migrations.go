// Package migrations holds the schema as SQL files, applied in order by postgres.Migrate.
//
// A file that was released is never edited: a change is a new file. Everything here is valid on PostgreSQL 15
// and later. Text keys compare byte by byte (COLLATE "C"), so that rows sorted in Go are sorted for
// PostgreSQL too, whatever the locale of the cluster.
package migrations

import "embed"

// FS holds the files, named NNNNN_title.sql.
//
//go:embed *.sql
var FS embed.FS
