package telemetry

import "slices"

// Keys is the closed list of slog keys: a log that can be searched has one name for one thing. A test reads
// every call of slog in cmd/ and internal/ and knows no other key; add one here, with what it means, when
// none fits. Never the id of a person, never a text, a key or a secret: a log is not erased with them.
//
// Keys are snake_case and carry their unit; durations are time.Duration and need none.
var Keys = slices.Concat(
	// What happened where.
	[]string{
		"attempt",    // of how many tries this is, from 1
		"client",     // group: what the Kafka client says of itself
		"code",       // domain.Code of an error
		"dependency", // what an answer is missing from: Kafka, PostgreSQL, ...
		"err",        // the error, with its causes
		"reason",     // why, in a word from a closed list
		"role",       // api, gate, projector, keeper, relay
		"took",       // how long it took
		"wait",       // how long until the next try
	},
	// The process.
	[]string{
		"addr",               // host:port listened on or dialled
		"file",               // path of a file
		"dir",                // path of a directory
		"go",                 // version of Go
		"memory_limit_bytes", // what the garbage collector aims to stay under
		"origin",             // of a setting
		"pid",                // of a child process
		"revision",           // of the source, or of limits
		"roles",              // list of role
		"setting",            // name of a setting
		"signal",             // that ended the process
		"url",                // without user and password
		"version",            // of the program, a projection or a server
	},
	// The log.
	[]string{
		"group",         // consumer group
		"next_offset",   // of a position
		"offset",        // of one record
		"partition",     // number
		"partitions",    // how many, or which
		"position",      // of a topic's partition
		"prefix",        // of the installation
		"record_time",   // that Kafka gave a record
		"topic",         // name without prefix
		"topic_id",      // Kafka's
		"transactional", // transactional id
		"until_offset",  // where a read ends
	},
	// The work.
	[]string{
		"batches",       // how many
		"bytes",         // how many
		"answer",        // of an endpoint: status and its first words
		"dead_letters",  // how many
		"endpoint",      // id of a tenant's
		"every_post",    // whether each one is looked at
		"event_id",      // of a post event
		"fold_version",  // of the fold that fills a read model
		"event_type",    // e.g. ViewCounted
		"events",        // how many
		"indexed",       // how many of them an index holds
		"lag_events",    // behind the log
		"lag",           // duration behind the log
		"migration",     // its number
		"post",          // its id
		"posts",         // how many
		"projection",    // its name
		"records",       // how many
		"remembered",    // views in the gate's memory
		"tenant",        // its id
		"verdicts",      // how many
		"verdicts_read", // to restore the gate's memory
		"views",         // how many
		"views_pending", // undecided ones that wait for the keeper
	},
	// Synonyms that are in use; new calls take the name on the right.
	[]string{
		"after", // wait, dependency
		"pause", // wait
		"to",    // dependency
		"error", // err
	},
	// A request. Its path is the route's pattern, its query is not logged: both can hold ids.
	[]string{
		"method",
		"request_id",
		"route",
		"status",
	},
)
