package postgres

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"seenby/domain"
)

// Classify gives an error of PostgreSQL its domain code, and leaves alone what has one, what is nil, and what
// only says that the caller gave up:
//
//   - CodeUnavailable: no connection, a server that starts or stops, a conflict with another transaction, a
//     resource that ran out (connections, memory, disk): the same call may work later.
//   - CodeMisconfigured: a table or column that is not there: the schema is not the one of this program.
//   - CodeInternal: PostgreSQL refused data (classes 22 and 23), or anything else: a retry gives the same.
func Classify(err error) error {
	var known *domain.Error
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	}
	// A deadline in a query closes the connection, and the caller's own deadline is no fault of the data either.
	if errors.Is(err, context.DeadlineExceeded) {
		return domain.Errorf(domain.CodeUnavailable, "PostgreSQL does not answer in time").Because(err)
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return classifyState(refused.Code, err)
	}
	if isConnection(err) {
		return domain.Errorf(domain.CodeUnavailable, "PostgreSQL cannot be reached").Because(err)
	}
	return domain.Errorf(domain.CodeInternal, "PostgreSQL").Because(err)
}

// isConnection: the connection is gone, or never was.
func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var operation *net.OpError
	return errors.As(err, &connect) || errors.As(err, &network) || errors.As(err, &operation) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, pgx.ErrTxCommitRollback) || pgconn.SafeToRetry(err)
}

// classifyState goes by the SQLSTATE (PostgreSQL manual, appendix A).
func classifyState(state string, err error) error {
	switch state {
	case "55P03", "55006", // lock_not_available, object_in_use
		"25P02", "25P03", // the transaction failed before, or was idle for too long
		"25006",          // read_only_sql_transaction: connected to a standby, as during a fail-over
		"3D000", "42501": // no such database, or no right yet: an operator is at work
		return unavailable(state, err)
	case "42P01", "42703", "42883", "3F000":
		return domain.Errorf(domain.CodeMisconfigured, "the database's schema does not fit this program (SQLSTATE %s): run seenby migrate", state).Because(err)
	}
	class := ""
	if len(state) == 5 {
		class = state[:2]
	}
	switch class {
	case "08", // connection
		"28", // authorization: a password is being changed
		"40", // serialization failure, deadlock
		"53", // out of disk, memory or connections
		"57", // shut down, crashed, starting, cancelled
		"58": // input and output
		return unavailable(state, err)
	case "22", "23":
		return domain.Errorf(domain.CodeInternal, "PostgreSQL refused data that had passed the checks (SQLSTATE %s)", state).Because(err)
	}
	return domain.Errorf(domain.CodeInternal, "PostgreSQL (SQLSTATE %s)", state).Because(err)
}

func unavailable(state string, err error) error {
	return domain.Errorf(domain.CodeUnavailable, "PostgreSQL cannot do this now (SQLSTATE %s)", state).Because(err)
}
