package tenant_test

import (
	"testing"

	"github.com/relais-edge/relais/test/postgres"
)

func TestOverPostgres(t *testing.T) {
	postgres.Again(t, map[string]func(*testing.T){
		"TestTokens":                                     TestTokens,
		"TestTokensOfServicesAndTheirEnd":                TestTokensOfServicesAndTheirEnd,
		"TestATokenMakesOnlyLesserOnes":                  TestATokenMakesOnlyLesserOnes,
		"TestQuotasAreOfTheWholeTreeBelow":               TestQuotasAreOfTheWholeTreeBelow,
		"TestGuardrailsOnlyTighten":                      TestGuardrailsOnlyTighten,
		"TestASessionIsItsUserUntilItEnds":               TestASessionIsItsUserUntilItEnds,
		"TestSessionsAreListedEndedAndBounded":           TestSessionsAreListedEndedAndBounded,
		"TestSessionsEndWithWhatTheyRestOn":              TestSessionsEndWithWhatTheyRestOn,
		"TestInvitations":                                TestInvitations,
		"TestResets":                                     TestResets,
		"TestDeniedAttemptsAreToldWhereTheActorIsAtHome": TestDeniedAttemptsAreToldWhereTheActorIsAtHome,
		"TestDeniedAttemptsOfAllUsersAreBounded":         TestDeniedAttemptsOfAllUsersAreBounded,
		"TestErasure":                                    TestErasure,
		"TestRightsGoDownTheTreeAndNowhereElse":          TestRightsGoDownTheTreeAndNowhereElse,
		"TestNobodyManagesHisParentOrSiblings":           TestNobodyManagesHisParentOrSiblings,
		"TestNobodyGivesMoreThanHeHas":                   TestNobodyGivesMoreThanHeHas,
		"TestARoleInAProjectEndsThere":                   TestARoleInAProjectEndsThere,
		"TestTheTree":                                    TestTheTree,
		"TestTheOperatorKeepsAnAdmin":                    TestTheOperatorKeepsAnAdmin,
		"TestLogin":                                      TestLogin,
		"TestGuessersDoNotLockTheOwnerOut":               TestGuessersDoNotLockTheOwnerOut,
		"TestSecondFactorsOutliveTheKeyThatClosedThem":   TestSecondFactorsOutliveTheKeyThatClosedThem,
		"TestSecondFactor":                               TestSecondFactor,
		"TestACodeIsTakenOnceOfManyAtOnce":               TestACodeIsTakenOnceOfManyAtOnce,
	}, "TestDecide")
}
