package projectiontest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"seenby/projections"
)

// Plan is a node of what EXPLAIN ANALYZE says.
type Plan struct {
	Type      string  `json:"Node Type"`
	Table     string  `json:"Relation Name"`
	Rows      float64 `json:"Actual Rows"`
	Removed   int64   `json:"Rows Removed by Filter"`
	Rechecked int64   `json:"Rows Removed by Index Recheck"`
	Plans     []Plan
}

// Scan runs a registered statement and gives the node that reads its table.
func (d *Database) Scan(ctx context.Context, statement string, args pgx.NamedArgs) (Plan, error) {
	var plans []struct{ Plan Plan }
	sql := "EXPLAIN (ANALYZE, FORMAT JSON) " + projections.Statements()[statement]
	if err := d.Pool.QueryRow(ctx, sql, args).Scan(&plans); err != nil {
		return Plan{}, fmt.Errorf("explain %s: %w", statement, err)
	}
	return plans[0].Plan.scan(), nil
}

func (p Plan) scan() Plan {
	for _, below := range p.Plans {
		if found := below.scan(); found.Table != "" {
			return found
		}
	}
	return p
}
