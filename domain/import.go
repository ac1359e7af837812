package domain

import "time"

// ImportRecorded says how far an import is; each record of an import replaces the one before.
type ImportRecorded struct {
	Tenant   TenantID
	ImportID string // what is imported, "/", and the name
	Run      RunID  // of the process that works on it

	Lines       int64    // of the content that are done with
	Imported    int64    // of those, as events in the log
	Rejected    int64    // of those, for what is wrong with them
	LinesSHA256 [32]byte // of those
	// Since is where lines behind Lines may stand in the log already: a process that ended without a word had appended
	// them. None: nowhere.
	Since []Position

	BegunAt    time.Time
	RecordedAt time.Time
	FinishedAt time.Time // zero: not finished
}

// RunID names one process's work on an import.
type RunID [16]byte

// EventType implements Event.
func (ImportRecorded) EventType() string { return "ImportRecorded" }

// Finished tells whether there is nothing left to do.
func (e ImportRecorded) Finished() bool { return !e.FinishedAt.IsZero() }
