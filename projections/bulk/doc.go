// Package bulk folds more rows than memory holds, and gives them sorted in PostgreSQL's binary COPY format. Projections
// build their bulk load of it (projections.BulkLoader).
//
// There are two folds, after what a table holds: Sums adds numbers up under a key; Spans keeps, for each member of a key,
// when it was first and last and how often. A key is a tenant, a post and, in Sums, some bytes more, and rows come sorted by
// it as PostgreSQL's collation "C" sorts.
//
// # Memory
//
// All of a fold's memory is one region outside of Go's heap, of the size that the caller gives: the collector never scans
// it and sets its pace by the rest of the process alone, and a page is taken only once something is written to it. A part
// is the buffer for writing. In the rest items grow from the front, names from the back: a name's key is interned once, and
// an item refers to it by 4 bytes. Where the two meet, everything is sorted in place, written to a file as a run, and both
// begin at nothing again. So no number and no length of names breaks the bound: each run has its own names, and the worst
// (each item with a new name of full length) costs more and shorter runs, no more memory.
//
// At the end the runs are merged. The region is then cut into buffers for reading them; where there are more runs than
// buffers of a sensible size, neighbours are merged into longer runs first, which for a moment needs the disk twice.
// Beside the region there are some hundred bytes of Go's heap for each open run, of which there are no more than
// buffers.
//
// # Files
//
// Runs stand one after the other in one file, which loses its name as soon as it is open: whatever ends the process, the
// space is free again. An error of the file (no space left) says what to do, and ends the load.
package bulk
