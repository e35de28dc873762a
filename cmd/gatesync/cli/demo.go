package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatesync/gatesync/integration/gen"
)

func (a *app) demoCmd() *cobra.Command {
	var keep bool
	configs := 400
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch three nodes work on this machine",
		Long: `Start a cluster of three real daemons on free loopback ports, in a temporary
directory; let a gateway's tree appear on one, edit on each, write one file on
two at the same moment, kill one and let it catch up. It prints what happens and
how long it takes, and cleans up.

With --keep the daemons run on until you interrupt it, for playing with.`,
		Example: "  gatesync demo\n  gatesync demo --keep",
		Args:    noArgs,
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the nodes running until interrupted")
	cmd.Flags().IntVar(&configs, "files", configs, "how many files the tree has, about")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		d, err := newDemo(a, gen.Params{Seed: 1, Configs: configs, Archives: 4, Archive: 512 << 10})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.cleanUp()) }()
		if err := d.play(cmd.Context()); err != nil {
			return d.explain(err)
		}
		if keep {
			d.keepRunning(cmd.Context())
		}
		return nil
	}
	return cmd
}

// demoWithin bounds each step: nothing here takes long unless it is broken.
const demoWithin = 60 * time.Second

// play is the script.
func (d *demo) play(ctx context.Context) error {
	d.say("three nodes on this machine, in %s", d.dir)
	for _, step := range []func(context.Context) error{
		d.makeCluster, d.fillTree, d.editEverywhere, d.collide, d.killOne, d.bringBack, d.compare,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) makeCluster(ctx context.Context) error {
	start := time.Now()
	first := d.nodes[0]
	if _, err := d.gatesync(ctx, append([]string{"init"}, first.flags()...)...); err != nil {
		return err
	}
	if err := d.start(ctx, first); err != nil {
		return err
	}
	for _, n := range d.nodes[1:] {
		token, err := d.gatesync(ctx, "token", "--data-dir", first.data)
		if err != nil {
			return err
		}
		args := append([]string{"join", first.addr, "--token", strings.TrimSpace(token)}, n.flags()...)
		if _, err := d.gatesync(ctx, args...); err != nil {
			return err
		}
		if err := d.start(ctx, n); err != nil {
			return err
		}
	}
	if err := d.until(ctx, 25*time.Millisecond, func() error { return d.voters(ctx, len(d.nodes)) }); err != nil {
		return err
	}
	d.step("gw1 makes a cluster, gw2 and gw3 join it; all three vote", time.Since(start))
	return nil
}

func (d *demo) fillTree(ctx context.Context) error {
	count, bytes, err := gen.WriteTo(d.nodes[0].tree, gen.Tree(d.params))
	if err != nil {
		return err
	}
	start := time.Now()
	if err := d.equal(ctx, d.nodes...); err != nil {
		return err
	}
	d.step(fmt.Sprintf("a gateway's tree appears on gw1: %s, %s; the others have all of it", plural(count, "file"), size(bytes)), time.Since(start))
	return nil
}

func (d *demo) editEverywhere(ctx context.Context) error {
	for i, n := range d.nodes {
		f := gen.Config(d.params, i)
		edited := gen.Edit(f, 1)
		if err := n.write(f.Path, edited.Data); err != nil {
			return err
		}
		start := time.Now()
		if err := d.visible(ctx, f.Path, edited.Data, d.nodes...); err != nil {
			return err
		}
		d.step(fmt.Sprintf("%s edits %s; the others read it", n.name, f.Path), time.Since(start))
	}
	return nil
}

// collide writes one file on two nodes at the same moment.
func (d *demo) collide(ctx context.Context) error {
	path := gen.Config(d.params, 5).Path
	start := time.Now()
	for _, n := range d.nodes[:2] {
		if err := n.write(path, []byte("<!-- written on "+n.name+" -->\n")); err != nil {
			return err
		}
	}
	if err := d.equal(ctx, d.nodes...); err != nil {
		return err
	}
	took := time.Since(start)
	text, err := os.ReadFile(d.nodes[2].file(path))
	if err != nil {
		return err
	}
	winner := strings.Fields(string(text) + " - - - ?")[3]
	kept := ""
	for _, n := range d.nodes[:2] {
		if out, err := d.gatesync(ctx, "conflicts", "--data-dir", n.data); err == nil && strings.Contains(out, path) {
			kept = "; the other text is kept aside on " + n.name
		}
	}
	d.step(fmt.Sprintf("gw1 and gw2 write one file at the same moment: %s's stands everywhere%s", winner, kept), took)
	return nil
}

func (d *demo) killOne(ctx context.Context) error {
	last := d.nodes[2]
	last.kill()
	d.step("gw3 is killed (SIGKILL)", 0)
	start := time.Now()
	for i := 10; i < 30; i++ {
		f := gen.Config(d.params, i)
		n := d.nodes[i%2]
		switch {
		case i%5 == 0:
			if err := os.Remove(n.file(f.Path)); err != nil {
				return err
			}
		default:
			if err := n.write(f.Path, gen.Edit(f, 2).Data); err != nil {
				return err
			}
		}
	}
	if err := d.nodes[0].write("new/while-gw3-was-down.xml", []byte("<new/>\n")); err != nil {
		return err
	}
	if err := d.equal(ctx, d.nodes[:2]...); err != nil {
		return err
	}
	d.step("gw1 and gw2 go on: 16 edits, 4 deletions, 1 new file; they agree", time.Since(start))
	return nil
}

func (d *demo) bringBack(ctx context.Context) error {
	start := time.Now()
	if err := d.start(ctx, d.nodes[2]); err != nil {
		return err
	}
	if err := d.equal(ctx, d.nodes...); err != nil {
		return err
	}
	d.step("gw3 starts again and has caught up", time.Since(start))
	return nil
}

func (d *demo) compare(ctx context.Context) error {
	if _, err := d.gatesync(ctx, "wait", "--data-dir", d.nodes[0].data); err != nil {
		return err
	}
	digest, files, err := d.nodes[0].digest()
	if err != nil {
		return err
	}
	d.step(fmt.Sprintf("all three trees are equal: %s, digest %s", plural(files, "file"), digest.Short()), 0)
	if err := d.heard(ctx); err != nil {
		return err
	}
	out, err := d.gatesync(ctx, "status", "--data-dir", d.nodes[0].data)
	if err != nil {
		return err
	}
	d.say("\n$ gatesync status --data-dir %s\n%s", d.nodes[0].data, strings.TrimRight(out, "\n"))
	return nil
}

// keepRunning waits for the person to have played enough.
func (d *demo) keepRunning(ctx context.Context) {
	d.say("\nthe nodes go on; try, from another terminal:")
	for _, n := range d.nodes {
		d.say("  %s: %s", n.name, n.tree)
	}
	d.say("  gatesync status --data-dir %s --watch\ninterrupt (Ctrl-C) to end it and clean up", d.nodes[0].data)
	<-ctx.Done()
}
