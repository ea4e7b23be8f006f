package main

import (
	"fmt"
	"io"
	"time"
)

// line is a row of the table.
type line struct {
	scenario Scenario
	result   *Result
	err      error
}

// report prints the table and the problems, and returns whether all scenarios passed.
func report(out io.Writer, tracks [][]line, took time.Duration) bool {
	good, calls := true, 0
	fmt.Fprintf(out, "\n%-44s %8s %7s  %s\n", "scenario", "calls", "failed", "verdict")
	for _, controls := range []bool{false, true} {
		for _, line := range flat(tracks) {
			if (line.scenario.Control != "") != controls {
				continue
			}
			fmt.Fprintf(out, "%-44s %8d %7d  %s\n", line.scenario.Name, line.calls(), len(line.failures()), line.verdict())
			good = good && line.good()
			if !controls {
				calls += line.calls()
			}
		}
	}
	fmt.Fprintln(out)
	for _, line := range flat(tracks) {
		line.explain(out)
	}
	fmt.Fprintf(out, "%d calls without negative controls, %s in all\n", calls, took.Round(time.Second))
	return good
}

func flat(tracks [][]line) []line {
	var all []line
	for _, track := range tracks {
		all = append(all, track...)
	}
	return all
}

func (l line) calls() int {
	if l.result == nil || l.result.CallLog == nil {
		return 0
	}
	return l.result.CallLog.Calls()
}

func (l line) failures() []Entry {
	if l.result == nil || l.result.CallLog == nil {
		return nil
	}
	return l.result.CallLog.Failures()
}

// expected is the number of failures of the kind that a control must show.
func (l line) expected() int {
	n := 0
	for _, failure := range l.failures() {
		if failure.Kind == l.scenario.Control {
			n++
		}
	}
	return n
}

func (l line) verdict() string {
	switch {
	case l.err != nil:
		return "ERROR: " + l.err.Error()
	case l.result.NotRun != "":
		return "NOT RUN: " + l.result.NotRun
	case len(l.result.Problems) > 0:
		return "FAILED: " + l.result.Problems[0]
	case l.scenario.Control != "" && l.expected() == 0:
		return "VOID: must fail (" + l.scenario.Control + "), but does not"
	case l.scenario.Control != "":
		return "fails as it must: " + kinds(l.failures())
	case l.calls() == 0:
		return "VOID: no call was made"
	case len(l.failures()) > l.result.Excused:
		return "FAILED: " + kinds(l.failures())
	case l.result.Excused > 0:
		return fmt.Sprintf("fine, %d failures are unavoidable", l.result.Excused)
	}
	return "fine"
}

func (l line) good() bool {
	if l.err != nil || len(l.result.Problems) > 0 {
		return false
	}
	if l.result.NotRun != "" {
		return true
	}
	if l.scenario.Control != "" {
		return l.expected() > 0
	}
	return l.calls() > 0 && len(l.failures()) <= l.result.Excused
}

// explain prints the measurements and, after failures, examples.
func (l line) explain(out io.Writer) {
	if l.result == nil || l.err != nil {
		return
	}
	if l.result.Note != "" {
		fmt.Fprintf(out, "%s (%s): %s\n", l.scenario.Name, l.result.Took.Round(time.Second), l.result.Note)
	}
	if l.good() {
		if failures := l.failures(); len(failures) > 0 {
			fmt.Fprintf(out, "%s: example: %s\n", l.scenario.Name, failures[0].Err)
		}
		for _, failure := range l.failures() {
			if failure.Kind == kindOther {
				fmt.Fprintf(out, "%s: also: %s\n", l.scenario.Name, failure.Err)
				break
			}
		}
		return
	}
	for _, problem := range l.result.Problems {
		fmt.Fprintf(out, "%s: %s\n", l.scenario.Name, problem)
	}
	failures := l.failures()
	if len(failures) > 0 {
		fmt.Fprintf(out, "%s: failed between %s and %s\n", l.scenario.Name,
			failures[0].Start.Format("15:04:05"), failures[len(failures)-1].Start.Format("15:04:05"))
	}
	for _, failure := range failures[:min(len(failures), 8)] {
		fmt.Fprintf(out, "%s: at %s after %s: %s: %s\n", l.scenario.Name,
			failure.Start.Format("15:04:05.000"), failure.Took.Round(time.Microsecond), failure.Kind, failure.Err)
	}
}
