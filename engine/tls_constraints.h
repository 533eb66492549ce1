/*
 * tls_constraints: the names that an authority may vouch for (RFC 5280 section 4.2.1.10). They hold for every
 * certificate below it, however far down.
 *
 *   NameConstraints: [0] permitted, [1] excluded: subtrees of
 *     dNSName     "corp.test" and all below it; ".corp.test" what is below it
 *     iPAddress   address and mask
 *     rfc822Name  a mailbox, a host's, or, ".corp.test", those of all hosts below it; in the subject too
 *     directoryName  of the subject too: what begins with these attributes
 *
 * A name of a form that some subtree is of and that is not known here cannot be said to be permitted. The common
 * name is no DNS name: nobody takes it for one here.
 */
#pragma once
#include "engine/tls_x509.h"

/* `constraints`: ag_x509.constraints of an authority above `c`. NULL: they let it pass; else why not, a static phrase. */
AG_MUST_USE const char *ag_tls_constraints_judge(struct ag_span constraints,
                                                 const struct ag_x509 *c);
