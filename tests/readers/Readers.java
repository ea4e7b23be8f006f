import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.CertPathValidator;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Reads each bundle DIR/*.ca as Java programs do, and verifies DIR/leaf.pem against it. Prints a
 * line for each bundle that is refused.
 */
class Readers {
    public static void main(String[] arguments) throws Exception {
        Path dir = Path.of(arguments[0]);
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        Certificate leaf = read(factory, dir.resolve("leaf.pem")).get(0);
        int count = 0;
        try (var bundles = Files.newDirectoryStream(dir, "*.ca")) {
            for (Path bundle : bundles) {
                count++;
                try {
                    verify(factory, leaf, read(factory, bundle));
                } catch (Exception e) {
                    String name = bundle.getFileName().toString().replaceFirst("\\.ca$", "");
                    System.out.println(name + " " + e);
                }
            }
        }
        System.out.println("all " + count + " bundles read");
    }

    private static List<Certificate> read(CertificateFactory factory, Path file) throws Exception {
        byte[] text = Files.readAllBytes(file);
        return List.copyOf(factory.generateCertificates(new ByteArrayInputStream(text)));
    }

    private static void verify(CertificateFactory factory, Certificate leaf, List<Certificate> roots)
            throws Exception {
        Set<TrustAnchor> anchors = new HashSet<>();
        for (Certificate root : roots) {
            anchors.add(new TrustAnchor((X509Certificate) root, null));
        }
        PKIXParameters parameters = new PKIXParameters(anchors);
        parameters.setRevocationEnabled(false);
        var path = factory.generateCertPath(List.of(leaf));
        CertPathValidator.getInstance("PKIX").validate(path, parameters);
    }
}
