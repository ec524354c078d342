package claim_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/test/postgres"
)

var server = &postgres.Lazy{}

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

func openStore(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	var s *store.Store
	var err error
	if postgres.Wanted(t) {
		var dsn string
		if dsn, err = server.Database(t.Context()); err == nil {
			s, err = store.OpenPostgres(t.Context(), dsn, o)
		}
	} else {
		s, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestOverPostgres(t *testing.T) {
	postgres.Again(t, map[string]func(*testing.T){
		"TestANameWorksOnceItIsProved":           TestANameWorksOnceItIsProved,
		"TestNoTenantTakesWhatAnotherHas":        TestNoTenantTakesWhatAnotherHas,
		"TestPendingClaimsKeepNobodyAway":        TestPendingClaimsKeepNobodyAway,
		"TestOneOfManyHasAName":                  TestOneOfManyHasAName,
		"TestANewOwnerNeedNotWait":               TestANewOwnerNeedNotWait,
		"TestADanglingNameIsNotTakenByAPage":     TestADanglingNameIsNotTakenByAPage,
		"TestAClaimLapsesAfterItsGrace":          TestAClaimLapsesAfterItsGrace,
		"TestSilenceIsNotAbsence":                TestSilenceIsNotAbsence,
		"TestEachNameHasItsTurn":                 TestEachNameHasItsTurn,
		"TestASweepOfAFormerLeaderWritesNothing": TestASweepOfAFormerLeaderWritesNothing,
	}, "TestNames", "TestTheWebReachesOnlyThePublic")
}
